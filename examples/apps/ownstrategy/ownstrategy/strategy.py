"""ownstrategy: FedAvg with momentum on the server, and a learning rate that decays."""

import json
import time
import uuid
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg


class MomentumAvg(FedAvg):
    """Keeps every round's model, and the best one, in a folder of the run."""

    def __init__(self, momentum: float, **options):
        super().__init__(**options)
        self.momentum = momentum
        self.velocity = None
        self.current = None
        self.best = 0.0
        self.tag = uuid.uuid4().hex
        self.folder = Path("outputs") / datetime.now().strftime("%Y-%m-%d")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.began = time.time()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Half the learning rate every other round."""
        if server_round % 2 == 0:
            config["lr"] *= 0.5
        config["tag"] = self.tag
        self.current = arrays.to_torch_state_dict()
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round: int, replies: Iterable[Message]):
        arrays, metrics = super().aggregate_train(server_round, replies)
        if arrays is None:
            return arrays, metrics
        step = {
            name: value - self.current[name] for name, value in arrays.to_torch_state_dict().items()
        }
        if self.velocity is not None:
            step = {name: self.momentum * self.velocity[name] + step[name] for name in step}
        self.velocity = step
        state = {name: self.current[name] + step[name] for name in step}
        torch.save(state, self.folder / f"round-{server_round}.pt")
        return ArrayRecord(state), metrics

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord:
        metrics = super().aggregate_evaluate(server_round, replies)
        if metrics is not None and metrics["eval_acc"] > self.best:
            self.best = metrics["eval_acc"]
            print(f"best accuracy {self.best:.3f} in round {server_round}")
        found = {"best": self.best, "seconds": time.time() - self.began}
        (self.folder / "best.json").write_text(json.dumps(found))
        return metrics
