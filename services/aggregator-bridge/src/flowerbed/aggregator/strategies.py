"""Strategies: how the weighted mean of a round's updates becomes the next checkpoint.

A strategy sees the mean, the base that the updates started from, and its own state of the
round before; it gives the new parameters and its new state. FedAvg takes the mean as it is, and
so does FedProx: its proximal term acts in the clients (Li et al. 2020, algorithm 2).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from flowerbed.aggregator.tensors import Array, TensorFile
from flowerbed.contracts.spec import Strategy as StrategySpec
from flowerbed.contracts.values import Scalar, Sha256

Tensors: TypeAlias = dict[str, Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyState:
    """All that the server must know to go on after a round. The same round gives the same bytes."""

    strategy: str
    params: Mapping[str, Scalar]
    round_number: int
    seed: int
    base: Sha256
    checkpoint: Sha256 = ""

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
        }
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()

    def resulting_in(self, checkpoint: Sha256) -> "StrategyState":
        return replace(self, checkpoint=checkpoint)


class Strategy(Protocol):
    def finish(
        self, mean: Tensors, base: TensorFile, state: StrategyState
    ) -> tuple[Tensors, StrategyState]:
        """The new parameters and state. `mean` may be changed in place, and be the answer."""
        ...


class FedAvg:
    """The weighted mean (McMahan et al. 2017, algorithm 1)."""

    def finish(
        self, mean: Tensors, base: TensorFile, state: StrategyState
    ) -> tuple[Tensors, StrategyState]:
        return mean, state


_STRATEGIES: dict[str, type[Strategy]] = {"fedavg": FedAvg, "fedprox": FedAvg}


def strategy_of(spec: StrategySpec) -> Strategy:
    return _STRATEGIES[spec.name]()
