"""Server optimizers: a round's mean step is taken for a gradient of the server's own.

    delta = mean - base,    new base = base + step(delta, moments)

FedAvgM is momentum on that step (Hsu et al. 2019, section 4.3). FedAdagrad, FedAdam and FedYogi
are Algorithm 2 of Reddi et al. 2021, "Adaptive Federated Optimization". All four give what Flower's
strategies of that name give, which differs from the paper in two points: the second moment begins
at 0, not at tau^2, and FedAdam's rate is corrected for the bias of the first rounds as in Kingma
and Ba 2015.

Moments are kept as float32 beside float32 and float16 weights, as float64 beside float64; sums and
roots are taken in float64, one IEEE operation an element, so the same round gives the same bytes.
Tensors of integers are counters: they take the mean.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Protocol

import numpy as np

from flowerbed.aggregator.checkpoints import rounded
from flowerbed.aggregator.tensors import BLOCK, Array, Layout, Tensor, TensorFile, Tensors, write
from flowerbed.contracts.values import Sha256


@dataclass(frozen=True, slots=True)
class Moments:
    """Files with one tensor a moment and weight: `m.NAME`. There is none before the first round."""

    before: Path | None
    after: Path


class Rule(Protocol):
    """What an optimizer does with some elements of one weight, flat and in float64."""

    @property
    def moments(self) -> tuple[str, ...]:
        """Names of what it keeps of each weight."""
        ...

    def moment(self, name: str, before: Array, delta: Array) -> Array: ...

    def step(self, delta: Array, moments: Mapping[str, Array]) -> Array: ...


@dataclass(frozen=True, slots=True)
class Momentum:
    """FedAvgM. Without momentum nothing is kept; at rate 1 it is FedAvg then."""

    rate: float
    momentum: float

    @property
    def is_idle(self) -> bool:
        return self.rate == 1 and self.momentum == 0

    @property
    def moments(self) -> tuple[str, ...]:
        return ("m",) if self.momentum > 0 else ()

    def moment(self, name: str, before: Array, delta: Array) -> Array:
        return self.momentum * before + delta

    def step(self, delta: Array, moments: Mapping[str, Array]) -> Array:
        return self.rate * moments.get("m", delta)


ADAPTIVE = frozenset(("fedadagrad", "fedadam", "fedyogi"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptive:
    """Algorithm 2 of Reddi et al. 2021; `name` chooses its line for the second moment."""

    name: str
    round_number: int
    eta: float
    tau: float
    beta_1: float = 0.0
    beta_2: float = 0.0

    @property
    def moments(self) -> tuple[str, ...]:
        return ("v",) if self.name == "fedadagrad" else ("m", "v")

    def moment(self, name: str, before: Array, delta: Array) -> Array:
        square, after = delta * delta, before
        match name, self.name:
            case "m", _:
                after = self.beta_1 * before + (1 - self.beta_1) * delta
            case _, "fedadagrad":
                after = before + square
            case _, "fedyogi":
                after = before - (1 - self.beta_2) * square * np.sign(before - square)
            case _:
                after = self.beta_2 * before + (1 - self.beta_2) * square
        return after

    def step(self, delta: Array, moments: Mapping[str, Array]) -> Array:
        return self._rate * moments.get("m", delta) / (np.sqrt(moments["v"]) + self.tau)

    @property
    def _rate(self) -> float:
        """As Flower counts: one more than the round."""
        if self.name != "fedadam":
            return self.eta
        n = self.round_number + 1
        return self.eta * math.sqrt(_without_power(self.beta_2, n)) / _without_power(self.beta_1, n)


def _without_power(beta: float, n: int) -> float:
    """1 - beta^n, the same on every machine, which the C library's power is not."""
    return float(1 - Decimal(beta) ** n)


@dataclass(frozen=True, slots=True)
class Optimized:
    """A strategy that lets a rule move the base. It keeps no second model in memory."""

    rule: Rule

    def finish(
        self, mean: Tensors, base: TensorFile, moments: Moments
    ) -> tuple[Tensors, Sha256 | None]:
        weights = {
            name: tensor for name, tensor in base.tensors.items() if tensor.dtype.kind == "f"
        }
        sha256 = self._keep(mean, base, weights, moments) if self.rule.moments else None
        with ExitStack() as files, np.errstate(over="ignore"):
            kept = files.enter_context(TensorFile(moments.after)) if sha256 else None
            for name in weights:
                for start, old, part in parts(base, name, mean):
                    known = (
                        {}
                        if kept is None
                        else {
                            moment: kept.part(f"{moment}.{name}", start, old.size)
                            for moment in self.rule.moments
                        }
                    )
                    part[:] = old + self.rule.step(part - old, known)
        return mean, sha256

    def _keep(self, mean: Tensors, base: TensorFile, weights: Layout, moments: Moments) -> Sha256:
        layout = {
            f"{moment}.{name}": Tensor(
                f"{moment}.{name}", "F64" if tensor.dtype_name == "F64" else "F32", tensor.shape, 0
            )
            for moment in self.rule.moments
            for name, tensor in weights.items()
        }
        with ExitStack() as files:
            path = moments.before
            before = None if path is None else files.enter_context(TensorFile(path))

            def blocks(tensor: Tensor) -> Iterator[Array]:
                moment, _, name = tensor.name.partition(".")
                for start, old, part in parts(base, name, mean):
                    was = np.zeros(old.size)
                    if before is not None:
                        was = before.part(tensor.name, start, old.size)
                    yield self.rule.moment(moment, was, part - old)

            sha256, _ = write(moments.after, layout, lambda one: rounded(one, blocks(one)))
        return sha256


def parts(base: TensorFile, name: str, mean: Tensors) -> Iterator[tuple[int, Array, Array]]:
    """Blocks of a weight: where each starts, the base's in float64, and the mean's own memory."""
    flat = mean[name].reshape(-1)
    for start in range(0, flat.size, BLOCK):
        part = flat[start : start + BLOCK]
        yield start, base.part(name, start, part.size), part
