"""FedAvg as it comes, with a line in a file for each round that begins and ends."""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()
N_NODES = 4


class Telling(FedAvg):
    def __init__(self, log: Path) -> None:
        super().__init__(
            fraction_evaluate=0.0, min_train_nodes=N_NODES, min_available_nodes=N_NODES
        )
        self._log = log

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        messages = list(super().configure_train(server_round, arrays, config, grid))
        self._say(what="began", round=server_round, n=len(messages))
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        there = list(replies)
        n_good = sum(not reply.has_error() for reply in there)
        self._say(what="ended", round=server_round, n=n_good)
        return super().aggregate_train(server_round, there)

    def _say(self, **facts: Any) -> None:
        with self._log.open("a") as file:
            file.write(json.dumps({**facts, "at": time.time()}) + "\n")


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    Telling(Path(str(config["log"]))).start(
        grid=grid,
        initial_arrays=ArrayRecord([np.zeros(1000, dtype=np.float32)]),
        num_rounds=int(config["num-server-rounds"]),
        timeout=float(config["round-timeout"]),
    )
