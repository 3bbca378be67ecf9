"""The server half for Flower's own runtime: FedAvg, or FedProx when `proximal-mu` is above zero."""

from collections.abc import Iterable

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from .task import initial_arrays

app = ServerApp()


class ReseededFedAvg(FedAvg):
    """FedAvg whose clients shuffle anew in every round."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        seed = config["seed"]
        assert isinstance(seed, int)
        reseeded = ConfigRecord({**config, "seed": seed + server_round})
        return super().configure_train(server_round, arrays, reseeded, grid)


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    # On the server FedProx is FedAvg: all it adds is the client's proximal term.
    sent = ("local-epochs", "batch-size", "learning-rate", "seed", "proximal-mu", "weight-decay")
    nodes = int(config["min-nodes"])
    strategy = ReseededFedAvg(
        min_train_nodes=nodes, min_evaluate_nodes=nodes, min_available_nodes=nodes
    )
    result = strategy.start(
        grid=grid,
        initial_arrays=initial_arrays(config),
        num_rounds=int(config["num-server-rounds"]),
        train_config=ConfigRecord({key: config[key] for key in sent}),
    )
    if path := str(config["final-model"]):
        torch.save(result.arrays.to_torch_state_dict(), path)
