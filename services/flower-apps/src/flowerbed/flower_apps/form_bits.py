"""The form `delta`: how the bits of each number differ from those of the base's; deflated."""

import zlib
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

CHUNK = 262_144
"""Elements at a time."""
_EFFORT = 1
"""More saves next to nothing: what compresses are bytes that are nearly all zero."""


class BadEncoding(Exception):
    """The parts are not what the form makes of such a tensor."""


def deflated(base: Array, new: Array) -> Array:
    """Of two flat arrays of one type."""
    squeeze = zlib.compressobj(_EFFORT)
    pieces = []
    for start in range(0, new.size, CHUNK):
        before, after = (_bits(one[start : start + CHUNK]) for one in (base, new))
        signed = (after - before).view(f"i{after.itemsize}")
        # Small differences of either sign become small numbers, whose upper bytes are zero.
        folded = (signed << 1) ^ (signed >> (8 * signed.itemsize - 1))
        planes = folded.view(np.uint8).reshape(-1, folded.itemsize).T
        pieces.append(squeeze.compress(np.ascontiguousarray(planes).data))
    pieces.append(squeeze.flush())
    return np.frombuffer(b"".join(pieces), np.uint8)


def inflated(
    base: Callable[[int, int], Array],
    dtype: np.dtype[Any],
    count: int,
    read: Callable[[int, int], Array],
    size: int,
) -> Iterator[Array]:
    """The new elements in order, some at a time; `read` gives some of the `size` bytes.

    Raises:
        BadEncoding: the bytes are not what any tensor gives.
    """
    stream = _Inflater(read, size)
    for start in range(0, count, CHUNK):
        n = min(CHUNK, count - start)
        planes = np.frombuffer(stream.take(n * dtype.itemsize), np.uint8)
        rows = np.ascontiguousarray(planes.reshape(dtype.itemsize, n).T)
        folded = rows.reshape(-1).view(f"u{dtype.itemsize}")
        one = folded.dtype.type(1)
        difference = (folded >> one) ^ (~(folded & one) + one)
        yield (_bits(base(start, n)) + difference).view(dtype)
    stream.end()


class _Inflater:
    """A deflated part, read as far as it is needed: however it swells, memory stays flat."""

    def __init__(self, read: Callable[[int, int], Array], size: int) -> None:
        self._read, self._size, self._at = read, size, 0
        self._stream = zlib.decompressobj()

    def take(self, n_bytes: int) -> bytearray:
        taken = bytearray()
        while len(taken) < n_bytes:
            source = self._stream.unconsumed_tail or self._next()
            piece = self._inflate(source, n_bytes - len(taken))
            if not piece and not source:
                raise BadEncoding("bits end before the tensor does")
            taken += piece
        return taken

    def end(self) -> None:
        """Nothing may follow but the stream's own end."""
        while not self._stream.eof:
            source = self._stream.unconsumed_tail or self._next()
            if self._inflate(source, 1) or not source:
                raise BadEncoding("bits do not end with the tensor")
        if self._at < self._size or self._stream.unused_data:
            raise BadEncoding("bits do not end with the tensor")

    def _inflate(self, source: bytes, most: int) -> bytes:
        try:
            return self._stream.decompress(source, most)
        except zlib.error as error:
            raise BadEncoding(f"bits cannot be inflated: {error}") from error

    def _next(self) -> bytes:
        n = min(CHUNK, self._size - self._at)
        self._at += n
        return self._read(self._at - n, n).tobytes() if n else b""


def _bits(values: Array) -> Array:
    flat = np.ascontiguousarray(values)
    return flat.view(f"u{flat.itemsize}")
