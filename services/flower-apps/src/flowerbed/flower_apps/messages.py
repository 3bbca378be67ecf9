"""An order as a Flower message, and what a reply to it says: the same for every transport."""

import hashlib
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.app.message import Array
from flwr.common.constant import SType
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

TTL_SECONDS = 30 * 24 * 3600.0
"""A message outlives whatever waits for it; deadlines are the round's."""


CONTROL, CONTROL_PREFIX = "control", "scaffold/"
"""SCAFFOLD's control variates: a record of a message, and their names in a file."""


class BadReply(Exception):
    """The app's answer is not one that a strategy could use."""


def order_message(
    base: Path,
    config: Mapping[str, bool | float | int | str],
    message_type: str,
    node_id: int,
    frozen: Path | None = None,
) -> Message:
    """The message with the base's arrays and the round's config, for that node.

    `frozen`: a file with those arrays that the base has not; of both, the base's count.
    """
    arrays = read_arrays(base)
    if frozen is not None:
        trained, arrays = arrays, read_arrays(frozen)
        arrays.update(trained)
    return message_of(arrays, config, message_type, node_id)


def read_arrays(base: Path) -> ArrayRecord:
    """A checkpoint's arrays, as an app finds them in a message."""
    with safe_open(base, framework="np", backend="pread") as file:
        return ArrayRecord({name: _array(file.get_tensor(name)) for name in _in_order(file.keys())})


def message_of(
    arrays: ArrayRecord,
    config: Mapping[str, bool | float | int | str],
    message_type: str,
    node_id: int,
) -> Message:
    """Control variates among the arrays are a record of their own: the app's model has none."""
    content = RecordDict({"arrays": arrays, "config": ConfigRecord(dict(config))})
    if any(name.startswith(CONTROL_PREFIX) for name in arrays):
        content["arrays"] = _below(arrays, "")
        content[CONTROL] = _below(arrays, CONTROL_PREFIX)
    return Message(content, dst_node_id=node_id, message_type=message_type, ttl=TTL_SECONDS)


def metrics_of(reply: Message) -> tuple[dict[str, float | int], tuple[str, ...]]:
    """The reply's metrics that are one number each, and the names of the others.

    Raises:
        BadReply: the app answered with an error.
    """
    if reply.has_error():
        raise BadReply(f"the app answered with error {reply.error.code}")
    metrics: dict[str, float | int] = {}
    left_out: list[str] = []
    for record in reply.content.metric_records.values():
        for name, value in record.items():
            if isinstance(value, int | float):
                metrics[name] = value
            else:
                left_out.append(name)
    return metrics, tuple(left_out)


def write_arrays(reply: Message, path: Path) -> tuple[str, int]:
    """The update as a safetensors file, on disk when this returns; the same arrays, the same bytes.

    Returns its sha256 and its size in bytes.

    Raises:
        BadReply: the reply holds no arrays, or more than one record of them.
    """
    save_arrays(record_of(reply), path)
    return settled(path)


def record_of(reply: Message) -> ArrayRecord:
    """The reply's arrays, and those of its record of control variates behind a prefix.

    Raises:
        BadReply: the reply holds no arrays, or more than one record of them.
    """
    found = dict(reply.content.array_records)
    control = found.pop(CONTROL, None)
    records = list(found.values())
    if len(records) != 1 or not records[0]:
        raise BadReply(f"the reply has {len(records)} array records, expected one with arrays")
    if control is None:
        return records[0]
    controls = {f"{CONTROL_PREFIX}{name}": array for name, array in control.items()}
    return ArrayRecord({**records[0], **controls})


def _below(arrays: ArrayRecord, prefix: str) -> ArrayRecord:
    """Those whose names begin so, without the prefix; without one, those of the model."""
    return ArrayRecord(
        {
            name.removeprefix(prefix): array
            for name, array in arrays.items()
            if name.startswith(CONTROL_PREFIX) == bool(prefix)
        }
    )


def settled(path: Path) -> tuple[str, int]:
    """The sha256 and the size of a file that is on disk when this returns."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return digest, file.tell()


def save_arrays(arrays: ArrayRecord, path: Path) -> None:
    """The record as a safetensors file; the same arrays, the same bytes."""
    save_file(elements_of(arrays), path)


def elements_of(arrays: ArrayRecord) -> dict[str, NDArray[Any]]:
    """Each array, where it lies in memory already if it can be."""
    return {name: _elements(array) for name, array in arrays.items()}


def _in_order(names: Iterable[str]) -> list[str]:
    """A list of arrays has numbers for names and means their order; the file sorts them as text."""
    found = list(names)
    return sorted(found, key=int) if all(name.isdecimal() for name in found) else found


def _array(elements: NDArray[Any]) -> Array:
    """What `Array(elements)` makes, byte for byte, with one copy instead of three."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(elements))
    data = b"".join((header.getvalue(), elements.reshape(-1).view(np.uint8).data))
    return Array(str(elements.dtype), elements.shape, SType.NUMPY, data)


def _elements(array: Array) -> NDArray[Any]:
    """What `array.numpy()` gives, in C order, where it lies in memory already if it can be."""
    file = io.BytesIO(array.data)  # shares the bytes
    if array.stype != SType.NUMPY or np.lib.format.read_magic(file) != (1, 0):
        return np.asarray(array.numpy(), order="C")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    order: Literal["F", "C"] = "F" if is_fortran else "C"
    there = np.ndarray(shape, dtype, array.data, file.tell(), order=order)
    return np.asarray(there, order="C")
