"""The hospital's strategy, which tells when each round begins and when it ends.

A round begins before its clients are chosen and ends when its evaluation is aggregated.
"""

import time
from collections.abc import Iterable
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp

from flowerbed.flower_apps.hospital.server_app import ReseededFedAvg
from flowerbed.flower_apps.hospital.task import initial_arrays

from .telling import tell

app = ServerApp()
SENT = ("local-epochs", "batch-size", "learning-rate", "seed", "proximal-mu")


class Telling(ReseededFedAvg):
    def __init__(self, log: object, **settings: Any) -> None:
        super().__init__(**settings)
        self._log = log

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        tell(self._log, what="began", round=server_round, at=time.time())
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        metrics = super().aggregate_evaluate(server_round, replies)
        tell(self._log, what="ended", round=server_round, at=time.time())
        return metrics


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    nodes = int(config["min-nodes"])
    strategy = Telling(
        config["log"], min_train_nodes=nodes, min_evaluate_nodes=nodes, min_available_nodes=nodes
    )
    strategy.start(
        grid=grid,
        initial_arrays=initial_arrays(config),
        num_rounds=int(config["num-server-rounds"]),
        timeout=float(config["round-timeout"]),
        train_config=ConfigRecord({key: config[key] for key in SENT}),
    )
