"""Samples a second of `flowerbed simulate` beside Flower's own simulation of the same app.

    python -m scripts.bench.simulation --clients 100,500 --rounds 3 --epochs 10

The app is `examples/digits`: every virtual client trains on 256 images of its own, and evaluates.
All of them take part in each round; Ray gives each one processor. The first round, in which Ray's
processes load torch, is not counted, but for the column that says how long everything took. The
two run one after the other, ours on a stack of its own that is there already. Prints a table.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from flowerbed.cli.api import Api
from flowerbed.cli.bundling import bundle_of
from flowerbed.embedded.testing import running_stack
from tests.support.field import Field

EXAMPLE = Path("examples/digits")
EXAMPLES = 256
"""Images that a client trains on."""


def document(app: str, clients: int, rounds: int, epochs: int) -> dict[str, Any]:
    return {
        "apiVersion": "flowerbed/v1",
        "metadata": {"name": "digits"},
        "spec": {
            "app": app,
            "model_ref": {"uri": "app:digits.task:Net"},
            "num_rounds": rounds,
            "min_clients": clients,
            "runtime": "simulation",
            "simulation": {"clients": clients},
            "train": {
                "local_epochs": epochs, "batch_size": 16, "learning_rate": 0.05, "seed": 7,
            },
        },
    }  # fmt: skip


def ours(field: Field, app: str, clients: int, rounds: int, epochs: int) -> tuple[float, float]:
    """Seconds of the counted rounds, and of everything."""
    began = time.time()
    found = field.completed(field.submit(document(app, clients, rounds, epochs)), 900)
    whole = time.time() - began
    ends = [datetime.fromisoformat(one["finished_at"]) for one in found["rounds"]]
    return (ends[-1] - ends[0]).total_seconds(), whole


def flowers(clients: int, rounds: int, epochs: int) -> tuple[float, float]:
    command = [
        sys.executable, "-m", "scripts.bench.simulation_flower", "--clients", str(clients),
        "--rounds", str(rounds), "--epochs", str(epochs),
    ]  # fmt: skip
    environment = {**os.environ, "FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    environment |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=900, env=environment
    )
    told = json.loads(next(line for line in done.stdout.splitlines() if line[:9] == '{"began":'))
    return told["ends"][-1] - told["ends"][0], told["ends"][-1] - told["began"]


def main() -> int:
    parser = argparse.ArgumentParser(description="Simulation beside Flower's own.")
    parser.add_argument("--clients", default="100,500")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="flowerbed-simulation-"))
    print("| virtual clients | | samples a second | a round | everything |", flush=True)
    print("|---|---|---|---|---|", flush=True)
    try:
        with running_stack(scratch / "stack") as stack:
            field = Field(stack, Api(stack.gateway_url, stack.api_token))
            app = f"fab:{field.api.push(bundle_of(EXAMPLE), 'default')['sha256']}"
            for clients in map(int, options.clients.split(",")):
                size = (clients, options.rounds, options.epochs)
                for name, (counted, whole) in (
                    ("flowerbed", ours(field, app, *size)),
                    ("Flower", flowers(*size)),
                ):
                    n_rounds = options.rounds - 1
                    samples = clients * EXAMPLES * options.epochs * n_rounds
                    print(
                        f"| {clients} | {name} | {samples / counted:,.0f} |"
                        f" {counted / n_rounds:.1f} s | {whole:.1f} s |",
                        flush=True,
                    )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
