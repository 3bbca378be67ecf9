"""The fold: a weighted mean of updates, one update at a time, in blocks, in a recorded order.

Memory is one model, whatever the number of updates. The same updates, weights and order give
the same bytes: every step is one IEEE operation an element, nothing is summed across elements.

An update in time counts as it is. A late one counts as the step that its client took, from the
base it was given, scaled by its staleness, and taken from the base of now:

    base_now + s * (update - base_then),    s = (1 + staleness) ** -a

So a round whose updates are all late moves the model by the weighted mean of scaled steps, the
server's step of FedBuff (Nguyen et al. 2022, "Federated Learning with Buffered Asynchronous
Aggregation", Algorithm 1). The scale is the polynomial one of FedAsync (Xie et al. 2019,
"Asynchronous Federated Optimization", section 5.2); a = 0.5 is what FedBuff uses.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from flowerbed.aggregator.strategies import Tensors
from flowerbed.aggregator.tensors import BLOCK, Array, Layout, Tensor, TensorFile, write
from flowerbed.contracts.update import UpdateAccepted
from flowerbed.contracts.values import ArtifactRef
from flowerbed.events.errors import Rejected


class MeanNotFinite(Rejected):
    code: ClassVar[str] = "not-finite"


class Accumulator:
    """The weighted sum of the updates so far."""

    def __init__(self, layout: Layout) -> None:
        self.total = 0
        self._sums = {
            name: np.zeros(tensor.count, _sum_type(tensor.dtype)) for name, tensor in layout.items()
        }
        self._layout = layout

    def add(self, update: TensorFile, weight: int) -> None:
        """Add an update, which has been screened against the same layout."""
        for name, sums in self._sums.items():
            factor = sums.dtype.type(weight)
            start = 0
            for block in update.blocks(name):
                part = sums[start : start + block.size]
                # The block is ours until the next one is read, so its memory takes the product.
                out = block if block.dtype == sums.dtype else None
                np.add(part, np.multiply(block, factor, out=out), out=part)
                start += block.size
        self.total += weight

    def add_late(
        self, update: TensorFile, then: TensorFile, now: TensorFile, weight: int, scale: float
    ) -> None:
        """Add `now` moved by the step from `then` to the update, scaled."""
        for name, sums in self._sums.items():
            factor, step = sums.dtype.type(weight), sums.dtype.type(scale)
            start = 0
            blocks = zip(update.blocks(name), then.blocks(name), now.blocks(name), strict=True)
            for block, before, base in blocks:
                part = sums[start : start + block.size]
                moved = np.subtract(block, before, dtype=sums.dtype)
                np.multiply(moved, step, out=moved)
                np.add(moved, base, out=moved)
                np.multiply(moved, factor, out=moved)
                np.add(part, moved, out=part)
                start += block.size
        self.total += weight

    def mean(self) -> Tensors:
        """Divide once by the total weight. The sums become the mean: nothing can be added."""
        sums, self._sums = self._sums, {}
        for array in sums.values():
            np.divide(array, array.dtype.type(self.total), out=array)
        return {name: array.reshape(self._layout[name].shape) for name, array in sums.items()}


def scale_of(staleness: int, exponent: float) -> float:
    """What is left of a step that was taken `staleness` rounds ago."""
    return float((1 + staleness) ** -exponent)


class Source(Protocol):
    """Where the fold has its files from. Both may block."""

    def fetch(self, update: UpdateAccepted) -> Path: ...

    def fetch_base(self, base: ArtifactRef) -> Path: ...

    def drop(self, update: UpdateAccepted) -> None:
        """It is folded; its file is not needed any more."""
        ...


class Fold:
    """A round's updates so far. `base` is the file of the round's own base.

    `exponent`: of the staleness, see `scale_of`.
    """

    def __init__(self, base: Path, source: Source, exponent: float = 0.0) -> None:
        with TensorFile(base) as file:
            self.accumulator = Accumulator(file.tensors)
        self.places: tuple[int, ...] = ()
        self._base = base
        self._source = source
        self._exponent = exponent

    def extend(self, updates: list[UpdateAccepted]) -> None:
        """Fold those of `updates` that are not in yet; what is in must be how they begin."""
        self.fold(updates[len(self.places) :])

    def fold(self, updates: Iterable[UpdateAccepted]) -> None:
        for update in updates:
            with TensorFile(self._source.fetch(update)) as file:
                self._add(file, update)
            self.places += (update.place,)
            self._source.drop(update)

    def _add(self, file: TensorFile, update: UpdateAccepted) -> None:
        if update.base is None or update.staleness == 0:
            self.accumulator.add(file, update.n_examples)
            return
        scale = scale_of(update.staleness, self._exponent)
        then = self._source.fetch_base(update.base)
        with TensorFile(then) as before, TensorFile(self._base) as now:
            self.accumulator.add_late(file, before, now, update.n_examples, scale)


def write_checkpoint(path: Path, layout: Layout, tensors: Tensors) -> tuple[str, int]:
    """Write `tensors` in the types of `layout`; the file's sha256 and size.

    Raises:
        MeanNotFinite: a value does not fit its type.
    """
    return write(path, layout, lambda tensor: _cast(tensor, tensors[tensor.name]))


def _cast(tensor: Tensor, array: Array) -> Iterator[Array]:
    flat = array.reshape(-1)
    for start in range(0, flat.size, BLOCK):
        block = flat[start : start + BLOCK]
        if tensor.dtype.kind == "f":
            with np.errstate(over="ignore"):
                block = block.astype(tensor.dtype, copy=False)
            if not np.isfinite(block).all():
                raise MeanNotFinite(f"the mean of tensor {tensor.name} is not finite")
            yield block
        else:
            yield np.rint(block).astype(tensor.dtype)


def _sum_type(dtype: np.dtype[Any]) -> type[np.floating[Any]]:
    """Integers too are averaged; float32 would not hold theirs."""
    return np.float32 if dtype.kind == "f" and dtype.itemsize <= 4 else np.float64
