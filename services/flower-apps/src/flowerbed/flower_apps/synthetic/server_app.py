"""The server half for Flower's own runtime: FedAvg."""

from collections.abc import Iterable

from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from safetensors.numpy import save_file

from .task import initial_arrays

app = ServerApp()


class ReseededFedAvg(FedAvg):
    """FedAvg whose clients take another step in every round."""

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
    sent = ("local-epochs", "batch-size", "learning-rate", "seed", "train-seconds")
    told = ConfigRecord({key: config[key] for key in sent})
    nodes = int(config["min-nodes"])
    strategy = ReseededFedAvg(
        min_train_nodes=nodes, min_evaluate_nodes=nodes, min_available_nodes=nodes
    )
    result = strategy.start(
        grid=grid,
        initial_arrays=initial_arrays(config),
        num_rounds=int(config["num-server-rounds"]),
        train_config=told,
        evaluate_config=told,
    )
    if path := str(config["final-model"]):
        save_file({name: array.numpy() for name, array in result.arrays.items()}, path)
