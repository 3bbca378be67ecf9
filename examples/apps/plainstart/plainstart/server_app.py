"""plainstart: A Flower / Scikit-Learn app."""

import joblib
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from plainstart.task import create_model, get_parameters, set_parameters

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    model = create_model(context.run_config["penalty"], 1)
    strategy = FedAvg(fraction_train=1.0, fraction_evaluate=1.0)
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(get_parameters(model)),
        num_rounds=context.run_config["num-server-rounds"],
    )

    print("\nSaving final model to disk...")
    set_parameters(model, result.arrays.to_numpy_ndarrays())
    joblib.dump(model, "logreg_model.pkl")
