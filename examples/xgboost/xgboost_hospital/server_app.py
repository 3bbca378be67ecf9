"""xgboost-hospital: A Flower / XGBoost app."""

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedXgbBagging, FedXgbCyclic

from xgboost_hospital.task import empty

# Create ServerApp
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Main entry point for the ServerApp."""
    is_cyclic = context.run_config["train-method"] == "cyclic"
    strategy = FedXgbCyclic() if is_cyclic else FedXgbBagging()
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(empty()),
        num_rounds=context.run_config["num-server-rounds"],
    )
    with open("final_model.json", "wb") as file:
        file.write(result.arrays["0"].numpy().tobytes())
