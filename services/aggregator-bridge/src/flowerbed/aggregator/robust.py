"""Robust strategies: a round's updates are compared with each other.

    fedmedian       the median of each element (Yin et al. 2018, definition 1)
    fedtrimmedavg   the mean of each element without the extremes (Yin et al. 2018, definition 2)
    krum            the update closest to its neighbours (Blanchard et al. 2017)
    multikrum       the weighted mean of the several closest
    bulyan          of the several closest, the mean of what is nearest to the median of each
                    element (El Mhamdi et al. 2018)

Parameters and results are those of Flower's strategies of the same names. As there, the number of
examples weighs in multikrum alone, and bulyan selects once, by the ranking of multikrum, where the
paper selects one by one.

The rule sees all updates, in cohort order, so it works at the round's end and nothing is folded
before. Updates that are not on this machine any more are fetched again.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Protocol, TypeAlias

import numpy as np

from flowerbed.aggregator import trees
from flowerbed.aggregator.checkpoints import rounded, write_checkpoint
from flowerbed.aggregator.comparing import sorted_values, squared_distances
from flowerbed.aggregator.fold import Accumulator, InTime, Source
from flowerbed.aggregator.tensors import Array, TensorFile, write
from flowerbed.contracts.strategies import ROBUST, least_updates, trimmed
from flowerbed.contracts.strategy import Strategy as StrategySpec
from flowerbed.contracts.update import UpdateAccepted
from flowerbed.contracts.values import Sha256
from flowerbed.events.errors import Rejected

AT_ONCE = 4
Chosen: TypeAlias = tuple[int, ...]
"""Indices of updates, rising."""


class TooFewUpdates(Rejected):
    code: ClassVar[str] = "too-few-updates"


class LateNotCompared(Rejected):
    code: ClassVar[str] = "late-not-compared"


# --- rules -------------------------------------------------------------------


class Rule(Protocol):
    def write(
        self, path: Path, base: TensorFile, updates: Sequence[InTime]
    ) -> tuple[Sha256, Chosen | None]:
        """Write the checkpoint; its digest, and which updates were chosen, if any are."""
        ...


@dataclass(frozen=True, slots=True)
class Median:
    def write(
        self, path: Path, base: TensorFile, updates: Sequence[InTime]
    ) -> tuple[Sha256, Chosen | None]:
        n = len(updates)
        return _by_elements(path, base, updates, trim=(n - 1) // 2), None


@dataclass(frozen=True, slots=True)
class TrimmedMean:
    beta: float

    def write(
        self, path: Path, base: TensorFile, updates: Sequence[InTime]
    ) -> tuple[Sha256, Chosen | None]:
        return _by_elements(path, base, updates, trim=trimmed(self.beta, len(updates))), None


@dataclass(frozen=True, slots=True)
class MultiKrum:
    n_malicious: int
    n_selected: int

    def write(
        self, path: Path, base: TensorFile, updates: Sequence[InTime]
    ) -> tuple[Sha256, Chosen | None]:
        chosen = _closest(base, updates, self.n_malicious, self.n_selected)
        terms = [updates[index] for index in chosen]
        if len(terms) == 1:
            terms = [InTime(terms[0].update, 1)]  # as it is: x * w / w may be another number
        sums = Accumulator(base.tensors)
        sums.add(*terms)
        return write_checkpoint(path, base.tensors, sums.mean())[0], chosen


@dataclass(frozen=True, slots=True)
class Bulyan:
    n_malicious: int

    def write(
        self, path: Path, base: TensorFile, updates: Sequence[InTime]
    ) -> tuple[Sha256, Chosen | None]:
        n_selected = len(updates) - 2 * self.n_malicious
        chosen = _closest(base, updates, self.n_malicious, n_selected)
        files = [updates[index].update for index in chosen]
        combine = partial(mean_around_median, count=n_selected - 2 * self.n_malicious)
        sha256, _ = write(
            path, base.tensors, lambda one: rounded(one, sorted_values(files, one, combine))
        )
        return sha256, chosen


def rule_of(spec: StrategySpec) -> Rule | None:
    """Of a strategy that sees a round's updates together; None of the others."""
    number = {key: float(value) for key, value in spec.params.items()}
    n_malicious = int(number.get("num_malicious_nodes", 0))
    match spec.name:
        case "fedmedian":
            return Median()
        case "fedtrimmedavg":
            return TrimmedMean(number["beta"])
        case "krum":
            return MultiKrum(n_malicious, 1)
        case "multikrum":
            return MultiKrum(n_malicious, int(number["num_nodes_to_select"]))
        case "bulyan":
            return Bulyan(n_malicious)
        case "fedxgbbagging":
            return trees.Bagging()
        case "fedxgbcyclic":
            return trees.Cyclic()
        case name:
            assert name not in ROBUST
            return None


# --- of sorted values, (elements, updates) ------------------------------------


def mean_between(values: Array, trim: int) -> Array:
    """Of each row without so many values at each end."""
    inner = values[:, trim : values.shape[1] - trim]
    means: Array = inner.sum(axis=1, dtype=np.float64) / inner.shape[1]
    return means


def mean_around_median(values: Array, count: int) -> Array:
    """Of each row the `count` values nearest to its median: where two are as near, the lower."""
    n = values.shape[1]
    median = mean_between(values, (n - 1) // 2)
    first, nearest = np.zeros(len(values), np.intp), np.full(len(values), np.inf)
    for start in range(n - count + 1):
        below, above = median - values[:, start], values[:, start + count - 1] - median
        farthest = np.maximum(below, above)
        first[farthest < nearest] = start
        nearest = np.minimum(farthest, nearest)
    chosen = np.take_along_axis(values, first[:, None] + np.arange(count), axis=1)
    return mean_between(chosen, 0)


def _by_elements(path: Path, base: TensorFile, updates: Sequence[InTime], trim: int) -> Sha256:
    files = [one.update for one in updates]
    combine = partial(mean_between, trim=trim)
    sha256, _ = write(
        path, base.tensors, lambda one: rounded(one, sorted_values(files, one, combine))
    )
    return sha256


# --- of distances -------------------------------------------------------------


def krum_scores(distances: Array, n_closest: int) -> list[float]:
    """Of each update the sum of its squared distances to the closest others (Blanchard et al. 2017,
    section 4). The sum is exact before it is rounded, so it does not depend on an order."""
    others = distances.copy()
    np.fill_diagonal(others, np.inf)
    others.sort(axis=1)
    return [math.fsum(row[:n_closest]) for row in others]


def lowest(scores: Sequence[float], count: int) -> Chosen:
    """Which have the lowest scores; of equal ones the first.

    Scores count as equal when their leading 40 bits are: what lies behind is the rounding of sums
    that another processor adds up in another order.
    """
    mantissas, exponents = np.frexp(np.asarray(scores))
    keys = np.ldexp(np.rint(np.ldexp(mantissas, 40)), exponents)
    order = np.argsort(keys, kind="stable")[:count]
    return tuple(sorted(int(index) for index in order))


def _closest(
    base: TensorFile, updates: Sequence[InTime], n_malicious: int, n_selected: int
) -> Chosen:
    distances = squared_distances([one.update for one in updates], base)
    n_closest = max(1, len(updates) - n_malicious - 2)
    return lowest(krum_scores(distances, n_closest), n_selected)


# --- a round's updates ----------------------------------------------------------


class Together:
    """The updates of a round, none of them folded before all are there.

    `selected`: once written, the places of the updates that the rule chose.
    """

    def __init__(self, spec: StrategySpec, rule: Rule, source: Source) -> None:
        self.selected: tuple[int, ...] | None = None
        self._spec = spec
        self._rule = rule
        self._source = source
        self._updates: list[UpdateAccepted] = []

    @property
    def places(self) -> tuple[int, ...]:
        return tuple(update.place for update in self._updates)

    def extend(self, updates: list[UpdateAccepted]) -> None:
        """Those of `updates` that are not in yet; what is in must be how they begin."""
        self._updates += updates[len(self._updates) :]

    def write(self, path: Path, base: TensorFile) -> Sha256:
        """Write what the rule makes of them.

        Raises:
            TooFewUpdates: for what the rule promises.
            LateNotCompared: one did not start from the base.
        """
        self._check()
        with ExitStack() as files:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                paths = list(pool.map(self._source.fetch, self._updates))
            opened = [
                InTime(files.enter_context(TensorFile(at)), update.n_examples)
                for at, update in zip(paths, self._updates, strict=True)
            ]
            sha256, chosen = self._rule.write(path, base, opened)
        self.selected = None if chosen is None else tuple(self.places[index] for index in chosen)
        return sha256

    def _check(self) -> None:
        name, n = self._spec.name, len(self._updates)
        least = least_updates(name, self._spec.params)
        if n < least:
            raise TooFewUpdates(f"{name} needs {least} updates, {n} are accepted")
        for update in self._updates:
            if update.staleness:
                raise LateNotCompared(
                    f"{name} compares updates of one base: {update.client_id}'s"
                    f" is {update.staleness} rounds late"
                )
