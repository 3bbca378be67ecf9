"""The digits example in Flower's own simulation, as it comes: one JSON line when it is over.

python -m scripts.bench.simulation_flower --clients 100 --rounds 3 --epochs 10
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

EXAMPLE = Path("examples/digits").absolute()


def main() -> int:
    parser = argparse.ArgumentParser(description="Flower's simulation of the digits example.")
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--fraction", type=float, default=1.0, help="of them that train")
    options = parser.parse_args()
    sys.path.insert(0, str(EXAMPLE))
    from digits.client_app import app as client_app  # type: ignore[import-not-found]
    from digits.task import Net  # type: ignore[import-not-found]

    ends: list[float] = []

    class Timed(FedAvg):
        def aggregate_evaluate(self, server_round: int, replies: Any) -> MetricRecord | None:
            found = super().aggregate_evaluate(server_round, replies)
            ends.append(time.time())
            return found

    server_app = ServerApp()

    @server_app.main()
    def run(grid: Grid, context: Context) -> None:
        told = {"learning-rate": 0.05, "local-epochs": options.epochs, "batch-size": 16}
        n, fraction = options.clients, options.fraction
        Timed(fraction_train=fraction, min_available_nodes=n).start(
            grid=grid,
            initial_arrays=ArrayRecord(Net().state_dict()),
            train_config=ConfigRecord(dict(told)),
            evaluate_config=ConfigRecord(dict(told)),
            num_rounds=options.rounds,
        )

    began = time.time()
    run_simulation(
        server_app=server_app,
        client_app=client_app,
        num_supernodes=options.clients,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
    print(json.dumps({"began": began, "ends": ends}), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
