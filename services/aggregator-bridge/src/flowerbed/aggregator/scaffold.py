"""SCAFFOLD (Karimireddy et al. 2020, algorithm 1): clients correct their steps by control variates.

With S the clients that answered, N all that there are, y_i a client's model and dc_i by how much it
has changed its own control variate:

    x = x + eta_g / |S| * sum(y_i - x),    c = c + |S| / N * (1 / |S|) * sum(dc_i)

The server's c lies in the checkpoint beside the model, as tensors `scaffold/NAME`, so it goes to
the clients and survives a crash as the model does. An update has dc_i under the same names.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flowerbed.aggregator.optimizers import Moments, parts
from flowerbed.aggregator.tensors import (
    BLOCK,
    Array,
    Layout,
    Tensor,
    TensorFile,
    Tensors,
    write,
)
from flowerbed.contracts.values import Sha256

CONTROL_PREFIX = "scaffold/"
"""As `flower_apps.messages` has it, which imports Flower; nothing here does."""


@dataclass(frozen=True, slots=True)
class Scaffold:
    """`rate` is eta_g, `share` is |S| / N. The mean that it is given weighs all updates alike."""

    rate: float
    share: float

    def finish(
        self, mean: Tensors, base: TensorFile, moments: Moments
    ) -> tuple[Tensors, Sha256 | None]:
        for name, tensor in base.tensors.items():
            if tensor.dtype.kind != "f":
                continue  # a counter: it takes the mean
            for _, old, part in parts(base, name, mean):
                if name.startswith(CONTROL_PREFIX):
                    part[:] = old + self.share * part.astype(np.float64)
                else:
                    part[:] = old + self.rate * (part - old)
        return mean, None


def with_control(path: Path, whole: Path) -> tuple[Path, Sha256]:
    """A base's file with a control variate of zero beside each weight that has none; its digest."""
    with TensorFile(path) as base:
        controls = {
            name: Tensor(name, tensor.dtype_name, tensor.shape, 0)
            for name, tensor in _controls(base.tensors)
            if name not in base.tensors
        }

        def blocks(tensor: Tensor) -> Iterator[Array]:
            if tensor.name in base.tensors:
                yield from base.blocks(tensor.name)
                return
            for start in range(0, tensor.count, BLOCK):
                yield np.zeros(min(BLOCK, tensor.count - start), tensor.dtype)

        sha256, _ = write(whole, {**base.tensors, **controls}, blocks)
        return whole, sha256


def _controls(layout: Layout) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in layout.items():
        if tensor.dtype.kind == "f" and not name.startswith(CONTROL_PREFIX):
            yield f"{CONTROL_PREFIX}{name}", tensor
