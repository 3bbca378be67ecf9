"""Samples a second of `flowerbed simulate` beside Flower's own simulation of the same app.

    python -m scripts.bench.simulation --clients 100,500 --rounds 3 --epochs 10

The app is `examples/digits`: every virtual client trains on 256 images of its own, and evaluates.
With `--fraction` some of them train in a round, and all evaluate; Ray gives each one processor. The
first round, in which Ray's processes load torch, is not counted, but for the column that says how
long everything took. The two run one after the other, ours on a stack of its own that is there
already. Prints a table.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Size:
    """`fraction` of the clients train in a round; all of them evaluate."""

    clients: int
    rounds: int
    epochs: int
    fraction: float

    @property
    def samples(self) -> float:
        """In the counted rounds."""
        n_trained = math.ceil(self.fraction * self.clients) * (self.rounds - 1)
        return n_trained * EXAMPLES * self.epochs


def document(app: str, size: Size) -> dict[str, Any]:
    return {
        "apiVersion": "flowerbed/v1",
        "metadata": {"name": "digits"},
        "spec": {
            "app": app,
            "model_ref": {"uri": "app:digits.task:Net"},
            "num_rounds": size.rounds,
            "client_fraction": size.fraction,
            "runtime": "simulation",
            "simulation": {"clients": size.clients},
            "train": {
                "local_epochs": size.epochs, "batch_size": 16, "learning_rate": 0.05, "seed": 7,
            },
        },
    }  # fmt: skip


def ours(field: Field, app: str, size: Size) -> tuple[float, float]:
    """Seconds of the counted rounds, and of everything."""
    began = time.time()
    found = field.completed(field.submit(document(app, size)), 900)
    whole = time.time() - began
    ends = [datetime.fromisoformat(one["finished_at"]) for one in found["rounds"]]
    return (ends[-1] - ends[0]).total_seconds(), whole


def flowers(size: Size) -> tuple[float, float]:
    command = [
        sys.executable, "-m", "scripts.bench.simulation_flower", "--clients", str(size.clients),
        "--rounds", str(size.rounds), "--epochs", str(size.epochs),
        "--fraction", str(size.fraction),
    ]  # fmt: skip
    environment = {**os.environ, "FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    environment |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=900, env=environment
    )
    told = json.loads(next(line for line in done.stdout.splitlines() if line[:9] == '{"began":'))
    return told["ends"][-1] - told["ends"][0], told["ends"][-1] - told["began"]


def show(size: Size, name: str, counted: float, whole: float) -> None:
    print(
        f"| {size.clients} | {name} | {size.samples / counted:,.0f} |"
        f" {counted / (size.rounds - 1):.1f} s | {whole:.1f} s |",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Simulation beside Flower's own.")
    parser.add_argument("--clients", default="100,500")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--fraction", type=float, default=1.0, help="of the clients that train")
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="flowerbed-simulation-"))
    print("| virtual clients | | samples a second | a round | everything |", flush=True)
    print("|---|---|---|---|---|", flush=True)
    try:
        with running_stack(scratch / "stack") as stack:
            field = Field(stack, Api(stack.gateway_url, stack.api_token))
            app = f"fab:{field.api.push(bundle_of(EXAMPLE), 'default')['sha256']}"
            for clients in map(int, options.clients.split(",")):
                size = Size(clients, options.rounds, options.epochs, options.fraction)
                show(size, "flowerbed", *ours(field, app, size))
                show(size, "Flower", *flowers(size))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
