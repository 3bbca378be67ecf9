"""Strategies whose rule begins with the weighted mean of a round's updates.

A strategy sees the mean, the base that the updates started from, and what it has kept of the
round before; it gives the new parameters. FedAvg takes the mean as it is, and so does FedProx: its
proximal term acts in the clients (Li et al. 2020, algorithm 2). What the server's optimizers do
with it: `optimizers.py`. Strategies that need the updates themselves: `robust.py`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from flowerbed.aggregator.fairness import fair_weight, share_of_step
from flowerbed.aggregator.fold import n_examples, scale_of
from flowerbed.aggregator.optimizers import ADAPTIVE, Adaptive, Moments, Momentum, Optimized
from flowerbed.aggregator.scaffold import Scaffold
from flowerbed.aggregator.tensors import TensorFile, Tensors
from flowerbed.contracts.strategies import LABEL_ENTROPY, SCAFFOLD, Weighting
from flowerbed.contracts.strategy import Strategy as StrategySpec
from flowerbed.contracts.update import UpdateAccepted
from flowerbed.contracts.values import Scalar, Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyState:
    """All that the server must know to go on after a round. The same round gives the same bytes.

    `moments`: the digest of the file with what an optimizer keeps of each weight.
    """

    strategy: str
    params: Mapping[str, Scalar]
    round_number: int
    seed: int
    base: Sha256
    checkpoint: Sha256
    moments: Sha256 | None = None
    custom: str | None = None

    def encode(self) -> bytes:
        """Canonical JSON: keys sorted, no space, no name that differs between runs."""
        document = {
            "format": "flowerbed-strategy-state/v1",
            "strategy": self.strategy,
            "params": dict(self.params),
            "round_number": self.round_number,
            "seed": self.seed,
            "base": self.base,
            "checkpoint": self.checkpoint,
            **({} if self.moments is None else {"moments": self.moments}),
            **({} if self.custom is None else {"custom": self.custom}),
        }
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


class Strategy(Protocol):
    def finish(
        self, mean: Tensors, base: TensorFile, moments: Moments
    ) -> tuple[Tensors, Sha256 | None]:
        """The new parameters, and the digest of the moments where there are any.

        `mean` may be changed in place, and be the answer.
        """
        ...


class FedAvg:
    """The weighted mean (McMahan et al. 2017, algorithm 1)."""

    def finish(
        self, mean: Tensors, base: TensorFile, moments: Moments
    ) -> tuple[Tensors, Sha256 | None]:
        return mean, None


def weight_of(spec: StrategySpec) -> Callable[[UpdateAccepted], float]:
    """What an update weighs in the mean."""
    if spec.name == SCAFFOLD:
        return lambda update: 1.0
    if spec.name == "qfedavg":
        return partial(fair_weight, q=float(spec.params["q"]))
    weighting = spec.weighting
    if weighting == Weighting():
        return n_examples

    def weight(update: UpdateAccepted) -> float:
        examples = update.n_examples if weighting.examples else 1
        entropy = update.metrics[LABEL_ENTROPY] if weighting.entropy else 1
        return examples * scale_of(update.staleness, weighting.recency) * entropy

    return weight


def strategy_of(
    spec: StrategySpec,
    round_number: int,
    updates: Sequence[UpdateAccepted] = (),
    learning_rate: float = 1.0,
    n_clients: int = 1,
) -> Strategy:
    """Of a round with these updates; `learning_rate` is the clients', of whom there are so many."""
    number = {key: float(value) for key, value in spec.params.items()}
    match spec.name:
        case "fedavgm":
            rule = Momentum(number["server_learning_rate"], number["server_momentum"])
            return FedAvg() if rule.is_idle else Optimized(rule)
        case "qfedavg":
            return Optimized(Momentum(share_of_step(updates, number["q"], learning_rate), 0.0))
        case "scaffold":
            return Scaffold(number["server_learning_rate"], len(updates) / n_clients)
        case name if name in ADAPTIVE:
            return Optimized(Adaptive(name=name, round_number=round_number, **number))
        case _:
            return FedAvg()
