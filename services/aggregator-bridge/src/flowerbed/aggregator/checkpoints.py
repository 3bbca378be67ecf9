"""What was computed as a checkpoint's file, each value rounded to the type that the base has."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from flowerbed.aggregator.tensors import BLOCK, Array, Layout, Tensor, Tensors, write
from flowerbed.events.errors import Rejected


class MeanNotFinite(Rejected):
    code: ClassVar[str] = "not-finite"


def write_checkpoint(path: Path, layout: Layout, tensors: Tensors) -> tuple[str, int]:
    """Write `tensors` in the types of `layout`; the file's sha256 and size.

    Raises:
        MeanNotFinite: a value does not fit its type.
    """
    return write(path, layout, lambda tensor: rounded(tensor, _blocks(tensors[tensor.name])))


def rounded(tensor: Tensor, blocks: Iterable[Array]) -> Iterator[Array]:
    """The blocks of a tensor in its own type.

    Raises:
        MeanNotFinite: a value does not fit it.
    """
    for block in blocks:
        if tensor.dtype.kind == "f":
            with np.errstate(over="ignore"):
                block = block.astype(tensor.dtype, copy=False)
            if not np.isfinite(block).all():
                raise MeanNotFinite(f"the mean of tensor {tensor.name} is not finite")
            yield block
        else:
            yield np.rint(block).astype(tensor.dtype)


def _blocks(array: Array) -> Iterator[Array]:
    flat = array.reshape(-1)
    for start in range(0, flat.size, BLOCK):
        yield flat[start : start + BLOCK]
