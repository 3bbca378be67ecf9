"""The forms `bfloat16` and `int8`: a step in fewer bits, and what is read of them."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

LEVELS = 127


def to_bfloat16(step: Array) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        single = step.astype(np.float32, copy=False)
    bits = single.view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    rounded[np.isnan(single)] = 0x7FC0
    return rounded.astype(np.uint16)


def from_bfloat16(bits: Array, kind: np.dtype[Any]) -> Array:
    single = (bits.astype(np.uint32) << 16).view(np.float32)
    return single.astype(kind, copy=False)


def to_levels(step: Array, block: int) -> tuple[Array, Array]:
    """Levels and one scale a block. A block with a value that is not finite has such a scale."""
    rows = _rows(step, block)
    with np.errstate(over="ignore", invalid="ignore"):
        scales = (np.abs(rows).max(axis=1, initial=0) / LEVELS).astype(np.float32)
        usable = np.where(np.isfinite(scales) & (scales > 0), scales, np.inf).astype(rows.dtype)
        levels = np.nan_to_num(np.rint(rows / usable[:, None]), nan=0, posinf=0, neginf=0)
    clipped = np.clip(levels, -LEVELS, LEVELS).astype(np.int8)
    return clipped.reshape(-1)[: step.size], scales


def from_levels(levels: Array, scales: Array, block: int, kind: np.dtype[Any]) -> Array:
    rows = _rows(levels, block).astype(kind)
    with np.errstate(over="ignore", invalid="ignore"):
        rows *= scales.astype(kind)[:, None]
    return rows.reshape(-1)[: levels.size]


def _rows(values: Array, block: int) -> Array:
    """One block a row, the last filled up with zeros."""
    n_rows = -(-values.size // block)
    if n_rows * block == values.size:
        return values.reshape(n_rows, block)
    rows = np.zeros(n_rows * block, values.dtype)
    rows[: values.size] = values
    return rows.reshape(n_rows, block)
