"""Flower's own strategies, asked for what they make of a round's updates."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    Bulyan,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedXgbBagging,
    FedXgbCyclic,
    FedYogi,
    Krum,
    MultiKrum,
    QFedAvg,
)

from tests.support.models import Model

STRATEGIES: dict[str, type[FedAvg]] = {
    one.__name__.lower(): one
    for one in (
        Bulyan, FedAdagrad, FedAdam, FedAvg, FedAvgM, FedMedian, FedProx, FedTrimmedAvg, FedYogi,
        FedXgbBagging, FedXgbCyclic, Krum, MultiKrum, QFedAvg,
    )
}  # fmt: skip
"""By the names that they have in a spec."""


class Reply:
    """As much of a Message as a strategy looks at: a real one needs a run."""

    def __init__(self, content: RecordDict) -> None:
        self.content = content

    def has_error(self) -> bool:
        return False


def arrays(tensors: Model) -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in sorted(tensors.items())})


def replies(
    updates: Iterable[Model],
    weights: Sequence[int],
    metrics: Sequence[dict[str, float]] | None = None,
) -> list[Any]:
    more = metrics or [{}] * len(weights)
    return [
        Reply(
            RecordDict(
                {
                    "arrays": arrays(update),
                    "metrics": MetricRecord({"num-examples": weight, **told}),
                }
            )
        )
        for update, weight, told in zip(updates, weights, more, strict=True)
    ]


def aggregate(
    strategy: FedAvg,
    base: Model,
    updates: Sequence[Model],
    weights: Sequence[int],
    server_round: int = 1,
    metrics: Sequence[dict[str, float]] | None = None,
) -> Model:
    """What the strategy makes of the updates that were trained from `base`."""
    if isinstance(strategy, FedAvgM | QFedAvg):
        strategy.current_arrays = arrays(base)
    else:
        strategy.current_arrays = dict(base)  # type: ignore[attr-defined]  # of FedOpt alone
    record, _ = strategy.aggregate_train(server_round, replies(updates, weights, metrics))
    assert record is not None
    return {name: array.numpy() for name, array in record.items()}
