"""The fold: a weighted mean of updates, one update at a time, in blocks, in cohort order.

Memory is one model, whatever the number of updates. The same updates, weights and order give
the same bytes: every step is one IEEE operation an element, nothing is summed across elements.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from flowerbed.aggregator.quorum import Answers, Terms
from flowerbed.aggregator.strategies import Tensors
from flowerbed.aggregator.tensors import BLOCK, Array, Layout, Tensor, TensorFile, write
from flowerbed.contracts.update import UpdateAccepted
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

    def mean(self) -> Tensors:
        """Divide once by the total weight. The sums become the mean: nothing can be added."""
        sums, self._sums = self._sums, {}
        for array in sums.values():
            np.divide(array, array.dtype.type(self.total), out=array)
        return {name: array.reshape(self._layout[name].shape) for name, array in sums.items()}


class CohortFold:
    """Folds accepted updates in cohort order; one that is early waits for those before it.

    `fetch` gives an update's file, and `drop` is called when it is folded. Both may block.
    """

    def __init__(
        self,
        layout: Layout,
        fetch: Callable[[UpdateAccepted], Path],
        drop: Callable[[UpdateAccepted], None],
    ) -> None:
        self.accumulator = Accumulator(layout)
        self.places: tuple[int, ...] = ()
        self._next = 0
        self._fetch = fetch
        self._drop = drop

    def advance(self, answers: Answers, terms: Terms) -> None:
        """Fold as far as the cohort has answered without a gap."""
        answered = terms.cohort[self._next :]
        for client_id in answered:
            if not answers.of(client_id):
                return
            self._take(answers.accepted.get(client_id))

    def complete(self, answers: Answers, terms: Terms) -> None:
        """Fold all that was accepted; who has not answered is left out."""
        for client_id in terms.cohort[self._next :]:
            self._take(answers.accepted.get(client_id))

    def _take(self, update: UpdateAccepted | None) -> None:
        if update is not None:
            self.fold([update])
        self._next += 1

    def fold(self, updates: Iterable[UpdateAccepted]) -> None:
        for update in updates:
            with TensorFile(self._fetch(update)) as file:
                self.accumulator.add(file, update.n_examples)
            self.places += (update.place,)
            self._drop(update)


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
