"""digits: the server half for Flower's own runtime."""

from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from digits.task import Net

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """FedAvg over all nodes."""
    config = context.run_config
    FedAvg().start(
        grid=grid,
        initial_arrays=ArrayRecord(Net().state_dict()),
        train_config=ConfigRecord({"learning-rate": config["learning-rate"]}),
        num_rounds=config["num-server-rounds"],
    )
