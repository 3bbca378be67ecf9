"""memory: A Flower / PyTorch app."""

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAdam

from memory.task import Body

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    strategy = FedAdam(fraction_train=1.0, fraction_evaluate=1.0, eta=0.02)
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(Body().state_dict()),
        num_rounds=context.run_config["num-server-rounds"],
    )
    print("rounds that each node remembers:", result.train_metrics_clientapp)
