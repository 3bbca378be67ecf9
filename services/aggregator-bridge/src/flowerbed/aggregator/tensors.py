"""Safetensors files, read and written a block at a time: memory does not grow with the model.

The library checks a file's structure; the blocks are then read from where its header says.
What is written equals what `safetensors` itself writes for the same tensors, byte for byte.
"""

import hashlib
import itertools
import json
import math
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from flowerbed.events.errors import Rejected

BLOCK = 262_144
"""Elements a block: the blocks of one step stay in the processor's cache, and reads are few."""

Array: TypeAlias = NDArray[Any]
Tensors: TypeAlias = dict[str, Array]

# In the order in which the library lays tensors out: wide ones first, for alignment.
_DTYPES: dict[str, np.dtype[Any]] = {
    "U64": np.dtype("<u8"), "I64": np.dtype("<i8"), "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"), "U32": np.dtype("<u4"), "I32": np.dtype("<i4"),
    "F16": np.dtype("<f2"), "U16": np.dtype("<u2"), "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"), "U8": np.dtype("u1"),
}  # fmt: skip
_RANK = {name: rank for rank, name in enumerate(_DTYPES)}


class NotSafetensors(Rejected):
    code: ClassVar[str] = "not-safetensors"


class DtypeNotFolded(Rejected):
    code: ClassVar[str] = "wrong-dtype"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a file: `offset` is where its first byte lies."""

    name: str
    dtype_name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def dtype(self) -> np.dtype[Any]:
        return _DTYPES[self.dtype_name]

    @property
    def count(self) -> int:
        return math.prod(self.shape)


class TensorFile:
    """A safetensors file open for reading, by several threads if need be.

    Raises:
        NotSafetensors: the file is malformed.
        DtypeNotFolded: a tensor has a type that has no mean here.
    """

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("rb", buffering=0)
        try:
            self.tensors, self.metadata = _read_layout(path, self._file)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "TensorFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def blocks(self, name: str) -> Iterator[Array]:
        """The tensor's elements in order, flat, at most `BLOCK` at a time.

        The blocks share one buffer: use each before the next.
        """
        tensor = self.tensors[name]
        buffer = np.empty(min(BLOCK, tensor.count), tensor.dtype)
        for start in range(0, tensor.count, BLOCK):
            block = buffer[: min(BLOCK, tensor.count - start)]
            self.read_into(block, name, start)
            yield block

    def read(self, name: str) -> Array:
        """The whole tensor."""
        tensor = self.tensors[name]
        array = np.empty(tensor.count, tensor.dtype)
        self.read_into(array, name, 0)
        return array.reshape(tensor.shape)

    def part(self, name: str, start: int, count: int) -> Array:
        """Some of the tensor's elements, flat, in float64."""
        block = np.empty(count, self.tensors[name].dtype)
        self.read_into(block, name, start)
        return block.astype(np.float64, copy=False)

    def read_into(self, out: Array, name: str, start: int) -> None:
        """Fill `out`, flat and of the tensor's type, with its elements from `start` on."""
        offset = self.tensors[name].offset + start * out.itemsize
        view = out.view(np.uint8).data
        while view:
            got = os.preadv(self._file.fileno(), [view], offset)
            if not got:
                raise NotSafetensors("the file became shorter while it was read")
            view, offset = view[got:], offset + got


Layout: TypeAlias = Mapping[str, Tensor]


def write(
    path: Path, layout: Layout, blocks: Callable[[Tensor], Iterator[Array]]
) -> tuple[str, int]:
    """Write the tensors of `layout` from their blocks; the file's sha256 and size."""
    tensors = sorted(layout.values(), key=lambda tensor: (_RANK[tensor.dtype_name], tensor.name))
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for chunk in _encoded(tensors, blocks):
            digest.update(chunk)
            size += file.write(chunk)
    return digest.hexdigest(), size


def stamp(path: Path, metadata: Mapping[str, str]) -> str:
    """Have a file say that of itself in its header; its sha256 then."""
    part, digest = path.with_suffix(".stamped"), hashlib.sha256()
    with path.open("rb") as file, part.open("wb") as stamped:
        (length,) = struct.unpack("<Q", file.read(8))
        header = {"__metadata__": dict(metadata), **json.loads(file.read(length))}
        for chunk in itertools.chain([_header(header)], iter(lambda: file.read(1 << 20), b"")):
            digest.update(chunk)
            stamped.write(chunk)
    part.replace(path)
    return digest.hexdigest()


def _header(header: Mapping[str, object]) -> bytes:
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _encoded(
    tensors: list[Tensor], blocks: Callable[[Tensor], Iterator[Array]]
) -> Iterator[bytes | memoryview]:
    header, offset = {}, 0
    for tensor in tensors:
        end = offset + tensor.count * tensor.dtype.itemsize
        header[tensor.name] = {
            "dtype": tensor.dtype_name,
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    yield _header(header)
    for tensor in tensors:
        for block in blocks(tensor):
            yield np.ascontiguousarray(block, tensor.dtype).view(np.uint8).data


def _read_layout(path: Path, file: BinaryIO) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="np") as checked:
            names = set(checked.keys())
    except (SafetensorError, OSError, ValueError) as error:
        raise NotSafetensors(f"not a safetensors file: {error}") from error
    (length,) = struct.unpack("<Q", file.read(8))
    header = json.loads(file.read(length))
    metadata = header.pop("__metadata__", None) or {}
    if set(header) != names:
        raise NotSafetensors("not a safetensors file: its header is ambiguous")
    for name, entry in header.items():
        if entry["dtype"] not in _DTYPES:
            raise DtypeNotFolded(f"tensor {name} has dtype {entry['dtype']}, which has no mean")
    tensors = {
        name: Tensor(
            name, entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0]
        )
        for name, entry in header.items()
    }
    return tensors, metadata
