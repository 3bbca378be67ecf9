"""ownstrategy: A Flower / PyTorch app."""

from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from ownstrategy.strategy import MomentumAvg
from ownstrategy.task import Net, load_data, test

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    strategy = MomentumAvg(config["server-momentum"], fraction_train=0.67, fraction_evaluate=1.0)
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(Net().state_dict()),
        train_config=ConfigRecord({"lr": config["lr"]}),
        num_rounds=config["num-server-rounds"],
        evaluate_fn=global_evaluate,
    )


def global_evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    """On data of the server's own."""
    net = Net()
    net.load_state_dict(arrays.to_torch_state_dict())
    _, loader = load_data(0, 5)
    loss, accuracy = test(net, loader)
    return MetricRecord({"loss": loss, "accuracy": accuracy})
