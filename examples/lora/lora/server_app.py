"""lora: a Flower ServerApp."""

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from lora.task import Net

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """With Flower alone, whole models travel."""
    torch.manual_seed(0)
    config = ConfigRecord({"learning-rate": context.run_config["learning-rate"]})
    FedAvg().start(
        grid=grid,
        initial_arrays=ArrayRecord(Net().state_dict()),
        train_config=config,
        num_rounds=context.run_config["num-server-rounds"],
    )
