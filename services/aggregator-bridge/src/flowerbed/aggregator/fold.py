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

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from flowerbed.aggregator.tensors import Array, Layout, TensorFile, Tensors
from flowerbed.contracts.update import UpdateAccepted
from flowerbed.contracts.values import ArtifactRef
from flowerbed.events.errors import Rejected

FOLD_BLOCK = 131_072
"""Elements: the sums of a block stay in a core's cache while all updates are added to them."""
TOGETHER = 32
"""Updates added in one pass over the sums, where so many wait."""
TOGETHER_BYTES = 1 << 30
"""At most, but for a single one: their files lie on the disk meanwhile."""
N_THREADS = min(4, os.cpu_count() or 1)


class Scratch(threading.local):
    """Memory for one block, of each thread its own: new memory would cost more than the sums."""

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def array(self, count: int, dtype: np.dtype[Any]) -> Array:
        """Uninitialised, and the same memory at each call."""
        size = count * dtype.itemsize
        if self._bytes.size < size:
            self._bytes = np.empty(size, np.uint8)
        return self._bytes[:size].view(dtype)


_block, _step = Scratch(), Scratch()


class NothingWeighs(Rejected):
    code: ClassVar[str] = "nothing-weighs"


class Term(Protocol):
    """What one update adds to the weighted sum."""

    @property
    def weight(self) -> float: ...

    def add_to(self, sums: Array, name: str, start: int) -> None:
        """Add the elements of a tensor from `start` on to `sums`, as many as that has."""
        ...


@dataclass(frozen=True, slots=True)
class InTime:
    """An update as it is; it has been screened against the sums' layout."""

    update: TensorFile
    weight: float

    def add_to(self, sums: Array, name: str, start: int) -> None:
        block = _block.array(sums.size, self.update.tensors[name].dtype)
        self.update.read_into(block, name, start)
        out = block if block.dtype == sums.dtype else None
        np.add(sums, np.multiply(block, sums.dtype.type(self.weight), out=out), out=sums)


@dataclass(frozen=True, slots=True)
class Late:
    """The base of `now`, moved by the step from `then` to the update, scaled."""

    update: TensorFile
    then: TensorFile
    now: TensorFile
    weight: float
    scale: float

    def add_to(self, sums: Array, name: str, start: int) -> None:
        block = _block.array(sums.size, self.update.tensors[name].dtype)
        moved = _step.array(sums.size, sums.dtype)
        self.update.read_into(block, name, start)
        moved[:] = block
        self.then.read_into(block, name, start)
        np.subtract(moved, block, out=moved)
        np.multiply(moved, sums.dtype.type(self.scale), out=moved)
        self.now.read_into(block, name, start)
        np.add(moved, block, out=moved)
        np.multiply(moved, sums.dtype.type(self.weight), out=moved)
        np.add(sums, moved, out=sums)


class Accumulator:
    """The weighted sum of the updates so far."""

    def __init__(self, layout: Layout) -> None:
        self.total: float = 0
        self._sums = {
            name: np.zeros(tensor.count, _sum_type(tensor.dtype)) for name, tensor in layout.items()
        }
        self._layout = layout

    def add(self, *terms: Term) -> None:
        """Add updates in one pass over the sum: each element in the order of the updates.

        Threads share the blocks, not the updates, so their number changes no byte.
        """

        def add(sums: Array, name: str, start: int) -> None:
            for term in terms:
                term.add_to(sums, name, start)

        self._on_blocks(add)
        self.total += sum(term.weight for term in terms)

    def mean(self) -> Tensors:
        """Divide once by the total weight. The sums become the mean: nothing can be added.

        Raises:
            NothingWeighs: there is nothing to divide by.
        """
        if not self.total:
            raise NothingWeighs("the updates of the round weigh nothing together")

        def divide(sums: Array, name: str, start: int) -> None:
            np.divide(sums, sums.dtype.type(self.total), out=sums)

        self._on_blocks(divide)
        sums, self._sums = self._sums, {}
        return {name: array.reshape(self._layout[name].shape) for name, array in sums.items()}

    def _on_blocks(self, work: Callable[[Array, str, int], None]) -> None:
        """Call `work` with each block of the sums, its tensor's name, and where it starts."""
        blocks = [
            (sums[start : start + FOLD_BLOCK], name, start)
            for name, sums in self._sums.items()
            for start in range(0, sums.size, FOLD_BLOCK)
        ]
        if len(blocks) == 1:
            work(*blocks[0])
        else:
            with ThreadPoolExecutor(N_THREADS) as pool:
                list(pool.map(work, *zip(*blocks, strict=True)))


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


def n_examples(update: UpdateAccepted) -> float:
    return update.n_examples


class Fold:
    """A round's updates so far. `base` is the file of the round's own base.

    `exponent`: of the staleness, see `scale_of`. `weigh`: what an update weighs.
    """

    def __init__(
        self,
        base: Path,
        source: Source,
        exponent: float = 0.0,
        weigh: Callable[[UpdateAccepted], float] = n_examples,
    ) -> None:
        with TensorFile(base) as file:
            self.accumulator = Accumulator(file.tensors)
        self.updates: list[UpdateAccepted] = []
        self._base = base
        self._source = source
        self._exponent = exponent
        self._weigh = weigh

    @property
    def places(self) -> tuple[int, ...]:
        return tuple(update.place for update in self.updates)

    def extend(self, updates: list[UpdateAccepted]) -> None:
        """Fold those of `updates` that are not in yet; what is in must be how they begin."""
        self.fold(updates[len(self.updates) :])

    def fold(self, updates: Iterable[UpdateAccepted]) -> None:
        """The next files are fetched while those before them are added."""
        waiting = iter(updates)
        with ThreadPoolExecutor(1) as ahead:
            coming = self._fetch(ahead, waiting)
            while coming:
                group, coming = coming, self._fetch(ahead, waiting)
                with ExitStack() as files:
                    terms = [self._term(files, path.result(), one) for one, path in group]
                    self.accumulator.add(*terms)
                for update, _ in group:
                    self.updates.append(update)
                    self._source.drop(update)

    def _fetch(
        self, ahead: ThreadPoolExecutor, updates: Iterator[UpdateAccepted]
    ) -> list[tuple[UpdateAccepted, Future[Path]]]:
        group, size = [], 0
        for update in islice(updates, TOGETHER):
            group.append((update, ahead.submit(self._source.fetch, update)))
            size += 0 if update.artifact is None else update.artifact.size
            if size >= TOGETHER_BYTES:
                break
        return group

    def _term(self, files: ExitStack, path: Path, update: UpdateAccepted) -> Term:
        file = files.enter_context(TensorFile(path))
        if update.base is None or update.staleness == 0:
            return InTime(file, self._weigh(update))
        scale = scale_of(update.staleness, self._exponent)
        then = files.enter_context(TensorFile(self._source.fetch_base(update.base)))
        now = files.enter_context(TensorFile(self._base))
        return Late(file, then, now, self._weigh(update), scale)


def _sum_type(dtype: np.dtype[Any]) -> type[np.floating[Any]]:
    """Integers too are averaged; float32 would not hold theirs."""
    return np.float32 if dtype.kind == "f" and dtype.itemsize <= 4 else np.float64
