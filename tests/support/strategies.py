"""A strategy of somebody's own, in an app that is pushed: it has a memory, and it rolls dice."""

STRATEGY = """
import random
import threading

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord
from flwr.serverapp.strategy import FedAvg


class Restless(FedAvg):
    \"\"\"The mean, moved by what it remembers of the rounds before and by chance.\"\"\"

    def __init__(self, pace=0.5, **kwargs):
        super().__init__(min_available_nodes=7, train_metrics_aggr_fn=lambda *_: None, **kwargs)
        self.pace = pace
        self.memory = {}
        self.seen = []
        self.measure = lambda found: MetricRecord({"n-seen": len(found)})

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        mean, _ = super().aggregate_train(server_round, replies)
        self.seen.append([reply.metadata.src_node_id for reply in replies])
        moved = {}
        for name, array in mean.items():
            self.memory[name] = self.pace * self.memory.get(name, 0) + array.numpy()
            moved[name] = Array(self.memory[name] + np.float32(random.random()))
        return ArrayRecord(moved), self.measure(self.seen)

    def aggregate_evaluate(self, server_round, replies):
        return MetricRecord({"worst": max(one.content["metrics"]["loss"] for one in replies)})


def make(run_config, pace):
    assert run_config["optimizer.name"] == "sgd", run_config
    return Restless(pace)


class Loud(FedAvg):
    def configure_train(self, server_round, arrays, config, grid):
        config["learning-rate"] = 0.05 / server_round
        return super().configure_train(server_round, arrays, config, grid)


class Holding(FedAvg):
    def __init__(self):
        super().__init__()
        self.guard = threading.Lock()


class Growing(FedAvg):
    def aggregate_train(self, server_round, replies):
        return ArrayRecord([np.zeros(3)]), None


class Other(FedAvg):
    def configure_train(self, server_round, arrays, config, grid):
        arrays = ArrayRecord({name: Array(one.numpy() + 1) for name, one in arrays.items()})
        return super().configure_train(server_round, arrays, config, grid)


class Counting(FedAvg):
    n = 0

    def aggregate_evaluate(self, server_round, replies):
        self.n += 1
        return MetricRecord({"n": self.n})


class Silent(FedAvg):
    def aggregate_train(self, server_round, replies):
        return None, None


class Sending(FedAvg):
    def configure_train(self, server_round, arrays, config, grid):
        return grid.send_and_receive([])


restless = Restless()
"""
