"""oldstyle: A Flower / NumPy app."""

import json

import numpy as np
from flwr.common import Context, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg

from oldstyle.task import load_data, new_weights, test


class SavingFedAvg(FedAvg):
    """Keeps each round's weights beside the app."""

    def aggregate_fit(self, server_round, results, failures):
        parameters, metrics = super().aggregate_fit(server_round, results, failures)
        if parameters is not None:
            np.savez(f"round-{server_round}.npz", *parameters_to_ndarrays(parameters))
        return parameters, metrics


def weighted_average(metrics):
    total = sum(examples for examples, _ in metrics)
    names = metrics[0][1]
    return {name: sum(n * one[name] for n, one in metrics) / total for name in names}


def server_fn(context: Context):
    config = context.run_config
    _, (images, labels) = load_data(0, 2)
    history = []

    def on_fit_config(server_round):
        return {"server_round": server_round, "lr": config["learning-rate"] / server_round}

    def evaluate(server_round, parameters, _):
        loss, accuracy = test(parameters, images, labels)
        history.append({"round": server_round, "loss": loss, "accuracy": accuracy})
        with open("history.json", "w") as file:
            json.dump(history, file)
        return loss, {"accuracy": accuracy}

    strategy = SavingFedAvg(
        fraction_fit=config["fraction-fit"],
        fraction_evaluate=1.0,
        min_available_clients=2,
        initial_parameters=ndarrays_to_parameters(new_weights()),
        on_fit_config_fn=on_fit_config,
        evaluate_fn=evaluate,
        fit_metrics_aggregation_fn=weighted_average,
        evaluate_metrics_aggregation_fn=weighted_average,
    )
    return ServerAppComponents(
        strategy=strategy, config=ServerConfig(num_rounds=config["num-server-rounds"])
    )


app = ServerApp(server_fn=server_fn)
