"""Screening: whether a client's update may go into the aggregate. No I/O but the files' own.

Every refusal has a stable code, so a site can tell what to mend.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from flowerbed.aggregator.tensors import (
    Array,
    DtypeNotFolded,
    Layout,
    NotSafetensors,
    Tensor,
    TensorFile,
)
from flowerbed.aggregator.trees import NotTrees, check_update
from flowerbed.contracts.strategies import LABEL_ENTROPY

RefusalCode: TypeAlias = Literal[
    "bad-metrics", "bad-num-examples", "foreign-object", "hash-mismatch", "label-entropy",
    "norm-exceeded", "not-finite", "not-safetensors", "not-trees", "object-missing",
    "store-unavailable", "too-large", "wrong-dtype", "wrong-form", "wrong-names", "wrong-shape",
]  # fmt: skip

ROUNDING = 1e-6

LARGEST_VALUE = 1e25
"""A parameter beyond this could overflow the weighted sum; no trained model holds one."""

HEADER_SLACK = 1 << 20
"""How many bytes an update's file may have more than its base's: other header, same tensors."""


class Refused(Exception):
    """The update does not go in; `code` says why."""

    def __init__(self, code: RefusalCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`max_norm`: how far an update may be from its base (L2); None is no limit."""

    max_examples: int = 1_000_000
    max_norm: float | None = None


def screen_claims(n_examples: int, metrics: Mapping[str, float], limits: Limits) -> None:
    """What the client says of itself."""
    if not 1 <= n_examples <= limits.max_examples:
        allowed = f"1 to {limits.max_examples}"
        raise Refused("bad-num-examples", f"{n_examples} examples claimed, {allowed} allowed")
    for key, value in metrics.items():
        if not math.isfinite(value):
            raise Refused("bad-metrics", f"metric {key} is {value}")


def screen_entropy(n_examples: int, metrics: Mapping[str, float]) -> None:
    """Of so many labels no entropy is more than their number's logarithm.

    Raises:
        Refused: it is not reported, or cannot be.
    """
    found, largest = metrics.get(LABEL_ENTROPY), math.log(n_examples)
    if found is None:
        raise Refused(
            "label-entropy", f"the federation weighs by {LABEL_ENTROPY}: none is reported"
        )
    if not 0 <= found <= largest + ROUNDING:
        allowed = f"0 to {largest:.6g} for {n_examples} examples"
        raise Refused("label-entropy", f"{LABEL_ENTROPY} is {found:g}, {allowed}")


def screen_file(path: Path, base: Path, limits: Limits) -> float:
    """Compare an update with its base, a block at a time; their L2 distance.

    Raises:
        Refused: other tensors than the base's, a value that is not finite, or too far away.
    """
    try:
        with TensorFile(path) as update, TensorFile(base) as reference:
            _same_layout(update.tensors, reference.tensors)
            squares = [_distance(update, reference, name) for name in sorted(update.tensors)]
    except NotSafetensors as error:
        raise Refused("not-safetensors", str(error)) from error
    except DtypeNotFolded as error:
        raise Refused("wrong-dtype", str(error)) from error
    norm = math.sqrt(math.fsum(squares))
    if limits.max_norm is not None and norm > limits.max_norm:
        raise Refused(
            "norm-exceeded", f"distance {norm:.6g} from the base, {limits.max_norm:g} allowed"
        )
    return norm


def screen_trees(path: Path, base: Path) -> None:
    """The same of an XGBoost model, of any size.

    Raises:
        Refused: it is none, or its trees do not fit into the base.
    """
    try:
        with TensorFile(path) as update, TensorFile(base) as reference:
            check_update(update, reference)
    except (NotTrees, NotSafetensors) as error:
        raise Refused("not-trees", str(error)) from error
    except DtypeNotFolded as error:
        raise Refused("wrong-dtype", str(error)) from error


def _same_layout(update: Layout, base: Layout) -> None:
    if missing := sorted(set(base) - set(update)):
        raise Refused("wrong-names", f"tensor {missing[0]} is missing")
    if unknown := sorted(set(update) - set(base)):
        raise Refused("wrong-names", f"tensor {unknown[0]} is not in the base")
    for name, wanted in base.items():
        found = update[name]
        if found.shape != wanted.shape:
            raise Refused("wrong-shape", f"tensor {name} is {found.shape}, base {wanted.shape}")
        if found.dtype != wanted.dtype:
            names = f"{found.dtype_name}, base {wanted.dtype_name}"
            raise Refused("wrong-dtype", f"tensor {name} is {names}")


def _distance(update: TensorFile, base: TensorFile, name: str) -> float:
    tensor = update.tensors[name]
    squares = 0.0
    pairs = zip(update.blocks(name), base.blocks(name), strict=True)
    for block, reference in pairs:
        _all_finite(tensor, block)
        difference = np.subtract(block, reference, dtype=np.float64)
        squares += float(np.dot(difference, difference))
    return squares


def _all_finite(tensor: Tensor, block: Array) -> None:
    if tensor.dtype.kind != "f":
        return
    # A NaN makes a comparison false, so one look finds NaN, infinity and overflow to come.
    for extreme in (float(block.max()), float(block.min())):
        if not abs(extreme) <= LARGEST_VALUE:
            raise Refused("not-finite", f"tensor {tensor.name} holds {extreme:g}")
