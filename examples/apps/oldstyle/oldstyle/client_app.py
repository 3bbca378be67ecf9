"""oldstyle: A Flower / NumPy app."""

import numpy as np
from flwr.client import ClientApp, NumPyClient
from flwr.common import Context

from oldstyle.task import load_data, test, train


class FlowerClient(NumPyClient):
    def __init__(self, trainset, testset):
        self.trainset = trainset
        self.testset = testset

    def fit(self, parameters, config):
        rng = np.random.default_rng(config["server_round"])
        weights = train(parameters, *self.trainset, config["lr"], rng)
        loss, _ = test(weights, *self.trainset)
        return weights, len(self.trainset[1]), {"train_loss": loss}

    def evaluate(self, parameters, config):
        loss, accuracy = test(parameters, *self.testset)
        return loss, len(self.testset[1]), {"accuracy": accuracy}


def client_fn(context: Context):
    partition_id = context.node_config["partition-id"]
    num_partitions = context.node_config["num-partitions"]
    return FlowerClient(*load_data(partition_id, num_partitions)).to_client()


app = ClientApp(client_fn=client_fn)
