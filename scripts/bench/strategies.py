"""Every strategy by name in a real federation of the hospitals' four sites, and one poisoned site.

    python -m scripts.bench.strategies --rounds 10

Starts a stack of its own. Each strategy trains the same model for the same rounds; its final
checkpoint is fetched from S3 and scored on the held-out rows of all sites, and every round is
folded again and compared. With `--poisoned` the label of every training row of one site is turned
round first. Prints a table; writes nothing.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from flowerbed.cli.api import Api
from flowerbed.contracts.strategies import PARAMETERS, TREES
from flowerbed.embedded.testing import running_stack
from scripts.bench.policies import score
from scripts.prepare_data import prepare
from tests.e2e.documents import hospital
from tests.support.field import Field, hospitals

GIVEN: dict[str, dict[str, Any]] = {
    "fedprox": {"proximal_mu": 0.1},
    "fedavgm": {"server_momentum": 0.5},
    "fedadagrad": {"eta": 0.03},
    "fedadam": {"eta": 0.03},
    "fedtrimmedavg": {"beta": 0.25},
    "multikrum": {"num_malicious_nodes": 0, "num_nodes_to_select": 3},
}
"""The others take their defaults. With four sites Krum can be sure against nobody. Trees need
another app: tests/e2e/test_strategies.py trains them."""


def document(name: str, rounds: int) -> dict[str, Any]:
    return hospital(
        num_rounds=rounds,
        strategy={"name": name, "params": GIVEN.get(name, {})},
        train={"local_epochs": 5, "learning_rate": 0.02, "seed": 11},
    )


def poison(folder: Path) -> None:
    """Turn every label of a site's training rows round."""
    file = folder / "train.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps({**row, "label": 1 - row["label"]}) + "\n" for row in rows))


def compare(field: Field, data: Path, scratch: Path, names: list[str], rounds: int) -> None:
    print("| strategy | params | accuracy | AUROC | rounds with the same bytes |", flush=True)
    print("|---|---|---|---|---|", flush=True)
    for name in names:
        run = field.completed(field.submit(document(name, rounds)), 600)
        paths = [f"/artifacts/{run['federation_id']}/{n}/verify" for n in range(1, rounds + 1)]
        same = sum(bool(field.api.post(path, patience=60)["identical"]) for path in paths)
        found = score(field, run["final"]["uri"], data, scratch)
        params = ", ".join(f"{key} {value}" for key, value in GIVEN.get(name, {}).items())
        print(
            f"| {name} | {params} | {found.accuracy:.3f} | {found.auroc or 0:.3f} |"
            f" {same} of {rounds} |",
            flush=True,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description="Every strategy in a real federation.")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--poisoned", action="store_true", help="one site's labels are turned")
    parser.add_argument("--only", help="names, with commas between")
    options = parser.parse_args()
    wanted = options.only.split(",") if options.only else sorted(PARAMETERS.keys() - TREES)
    scratch = Path(tempfile.mkdtemp(prefix="flowerbed-strategies-"))
    try:
        with running_stack(scratch / "stack") as stack:
            field = Field(stack, Api(stack.gateway_url, stack.api_token))
            data = scratch / "data"
            names = [site["name"] for site in prepare("hospital", data, 7)["sites"]]
            if options.poisoned:
                poison(data / names[-1])
            for ready in hospitals(field, data, scratch / "clients", names):
                compare(ready, data, scratch, wanted, options.rounds)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
