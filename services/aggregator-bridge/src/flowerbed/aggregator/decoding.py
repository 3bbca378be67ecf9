"""An update that travelled in one of the `forms` becomes the file that `full` would have sent.

It is decoded once, a block at a time, into the spool: what screens, folds and compares updates sees
no difference.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from flowerbed.aggregator.tensors import (
    Array,
    DtypeNotFolded,
    NotSafetensors,
    Tensor,
    TensorFile,
    write,
)
from flowerbed.flower_apps.form_bits import BadEncoding
from flowerbed.flower_apps.forms import (
    KEY,
    Form,
    check_parts,
    decode,
    parts_of,
    travels,
)


def decode_file(form: Form, encoded: Path, base: Path, base_sha256: str, path: Path) -> None:
    """Write what the update's tensors are to `path`, which is there once it is whole.

    Raises:
        BadEncoding: it is no update in this form, or not from this base.
    """
    part = path.with_suffix(".part")
    try:
        with TensorFile(encoded) as file, TensorFile(base) as reference:
            _check(form, file, reference, base_sha256)
            write(part, reference.tensors, lambda one: _restored(form, file, reference, one))
        part.replace(path)
    except (NotSafetensors, DtypeNotFolded) as error:
        raise BadEncoding(str(error)) from error
    finally:
        part.unlink(missing_ok=True)


def pick(whole: Path, path: Path, trainable: Sequence[str]) -> None:
    """Write those tensors that travel to `path`, which is there once it is whole."""
    part = path.with_suffix(".part")
    with TensorFile(whole) as file:
        layout = {name: one for name, one in file.tensors.items() if travels(name, trainable)}
        write(part, layout, lambda one: file.blocks(one.name))
    part.replace(path)


def _check(form: Form, encoded: TensorFile, base: TensorFile, base_sha256: str) -> None:
    wanted, found = form.of_base(base_sha256), encoded.metadata.get(KEY, "no form")
    if found != wanted:
        raise BadEncoding(f"the file says {found[:200]!r}, wanted {wanted!r}")
    parts: dict[str, dict[str, tuple[np.dtype[np.generic], int]]] = {}
    for tensor in encoded.tensors.values():
        part, _, name = tensor.name.partition("/")
        parts.setdefault(name, {})[part] = (tensor.dtype, tensor.count)
    if unknown := sorted(set(parts) - set(base.tensors)):
        raise BadEncoding(f"tensor {unknown[0]} is not in the base")
    for name, tensor in base.tensors.items():
        try:
            check_parts(form, parts.get(name, {}), parts_of(form, tensor.dtype, tensor.count))
        except BadEncoding as error:
            raise BadEncoding(f"tensor {name}: {error}") from error


def _restored(form: Form, encoded: TensorFile, base: TensorFile, tensor: Tensor) -> Iterator[Array]:
    def read(part: str, start: int, count: int) -> Array:
        return _elements(encoded, f"{part}/{tensor.name}", start, count)

    def old(start: int, count: int) -> Array:
        return _elements(base, tensor.name, start, count)

    def size(part: str) -> int:
        return encoded.tensors[f"{part}/{tensor.name}"].count

    return decode(form, old, tensor.dtype, tensor.count, read, size)


def _elements(file: TensorFile, name: str, start: int, count: int) -> Array:
    block = np.empty(count, file.tensors[name].dtype)
    file.read_into(block, name, start)
    return block
