"""A published result again: Flower's `niid_bench` on Fashion-MNIST, ten clients in every round.

    python -m scripts.reproduce --partition iid        (or: make reproduce)

The setting is NIID-Bench's (Li et al., 2022, arXiv 2102.02079, table 3), as Flower's baseline
repeats it: 50 rounds of 10 local epochs, a CNN with two 5x5 convolutions, SGD with momentum 0.9 and
weight decay 1e-5, learning rate 0.01, batches of 64, and the accuracy on the 10,000 test images
after the last round. Each client scores a tenth of them, so the weighted mean is the whole's.

Sets up a stack of its own in .state/reproduce with ten runners. Exit code 0 if what comes out is
within a point of what was published. The images come from Debian's dataset-fashion-mnist.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from flowerbed.cli.api import Api
from flowerbed.cli.live import watch
from scripts import demo
from scripts.demo import ROOT, console, step
from scripts.prepare_data import FASHION_MNIST, CannotPrepare, Images, Labels, npz, read_idx

N_CLIENTS = 10
WITHIN = 1.0
"""Points of accuracy."""
LEAST = 10
"""Images of the smallest client, as NIID-Bench's own draw has it."""
LONGEST = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class Published:
    """Accuracy in per cent, after the last round."""

    strategy: dict[str, Any]
    accuracy: float


PUBLISHED = {
    "iid": Published({"name": "fedavg"}, 89.0),
    "dirichlet": Published({"name": "fedavg"}, 88.4),
}
"""By how the training images are dealt out; `dirichlet` is by label, concentration 0.5."""

TRAIN: dict[str, int | float | str] = {
    "batch_size": 64,
    "learning_rate": 0.01,
    "weight_decay": 1e-5,
    "architecture": "lenet",
}


@dataclass(frozen=True, slots=True)
class Part:
    """`share` of the images, for a run in less than the published time."""

    rounds: int = 50
    local_epochs: int = 10
    share: float = 1.0


WHOLE = Part()


def deal(labels: Labels, partition: str, seed: int) -> list[NDArray[np.intp]]:
    """Which images each of the ten clients has."""
    rng = np.random.default_rng(seed)
    if partition == "iid":
        return [np.sort(part) for part in np.array_split(rng.permutation(len(labels)), N_CLIENTS)]
    while True:
        shares: list[list[int]] = [[] for _ in range(N_CLIENTS)]
        for label in np.unique(labels):
            places = rng.permutation(np.flatnonzero(labels == label))
            wanted = rng.dirichlet([0.5] * N_CLIENTS)
            # Who has its even share already gets none of this label (NIID-Bench, partition.py).
            wanted *= [len(share) < len(labels) / N_CLIENTS for share in shares]
            cuts = (np.cumsum(wanted / wanted.sum())[:-1] * len(places)).astype(int)
            for share, part in zip(shares, np.split(places, cuts), strict=True):
                share.extend(part.tolist())
        if min(map(len, shares)) >= LEAST:
            return [np.array(sorted(share), dtype=np.intp) for share in shares]


def prepare(out: Path, partition: str, seed: int, share: float, source: Path) -> list[Path]:
    """A folder for each client: its training images, and a tenth of the test images.

    Raises:
        CannotPrepare: the data set is not installed.
    """
    if not (source / "train-images-idx3-ubyte.gz").exists():
        raise CannotPrepare(
            f"no Fashion-MNIST in {source}: apt-get install dataset-fashion-mnist, or name its"
            " folder with --fashion-mnist"
        )
    images, labels = _part(source, "train", share)
    test_images, test_labels = _part(source, "t10k", share)
    tests = np.array_split(np.arange(len(test_labels)), N_CLIENTS)
    folders = []
    for place, mine in enumerate(deal(labels, partition, seed)):
        folder = out / f"client-{place}"
        folder.mkdir(parents=True, exist_ok=True)
        held_out = tests[place]
        (folder / "train.npz").write_bytes(npz(images[mine], labels[mine]))
        (folder / "test.npz").write_bytes(npz(test_images[held_out], test_labels[held_out]))
        (folder / "dataset.json").write_text(json.dumps({"task": "vision"}) + "\n")
        folders.append(folder)
    sites = [{"name": folder.name} for folder in folders]
    (out / "sites.json").write_text(json.dumps({"app": "vision", "sites": sites}) + "\n")
    return folders


def _part(source: Path, part: str, share: float) -> tuple[Images, Labels]:
    images, labels = read_idx(source, part)
    n = round(len(labels) * share)
    return images[:n], labels[:n]


def document(partition: str, part: Part, folders: Sequence[Path], seed: int) -> dict[str, Any]:
    return {
        "apiVersion": "flowerbed/v1",
        "metadata": {"name": f"niid-bench-{partition}"},
        "spec": {
            "app": "builtin:vision",
            "model_ref": {"uri": "builtin:vision"},
            "strategy": PUBLISHED[partition].strategy,
            "num_rounds": part.rounds,
            "min_clients": N_CLIENTS,
            "round_policy": {"quorum": 1.0, "deadline_seconds": 3600},
            "train": {**TRAIN, "local_epochs": part.local_epochs, "seed": seed},
            "client_selector": {"tags": ["vision"]},
            "dataset_spec": {"hashes": demo.hashes_of(folders)},
        },
    }


def run(options: argparse.Namespace, part: Part) -> dict[str, Any]:
    """Train; the federation as it ended."""
    state: Path = options.state_dir.absolute()
    data = state / "data" / f"{options.partition}-{options.seed}-{part.share:g}"
    folders = prepare(data, options.partition, options.seed, part.share, options.fashion_mnist)
    stack = demo.start_stack(state)
    step(f"Start {N_CLIENTS} runners")
    homes = {folder: state / "clients" / data.name / folder.name for folder in folders}
    demo.start_runners("vision", homes, state)
    step(f"Train {part.rounds} rounds of {part.local_epochs} local epochs")
    api = Api(stack.gateway_url, stack.api_token)
    spec = document(options.partition, part, folders, options.seed)
    submitted = api.submit(json.dumps(spec).encode(), f"reproduce-{time.time_ns()}")
    return watch(api, submitted["federation_id"], console=console, timeout=LONGEST)


def compare(federation: dict[str, Any], partition: str) -> float:
    """Print what came out beside what was published; the difference in points."""
    rounds = [one for one in federation["rounds"] if one["status"] == "completed"]
    reached: list[float] = [100 * one["evaluation"]["accuracy"] for one in rounds]
    published = PUBLISHED[partition].accuracy
    table = Table(title=f"Fashion-MNIST, {partition}, {N_CLIENTS} clients", title_justify="left")
    for column in ("accuracy, %", "rounds", "published", "here", "difference"):
        table.add_column(column, justify="right")
    table.add_row(
        "after the last round", str(len(reached)), f"{published:.1f}", f"{reached[-1]:.2f}",
        f"{reached[-1] - published:+.2f}",
    )  # fmt: skip
    last = reached[-10:]
    mean = sum(last) / len(last)
    table.add_row(
        f"mean of the last {len(last)}", "", "", f"{mean:.2f}", f"{mean - published:+.2f}"
    )
    console.print(table)
    return abs(reached[-1] - published)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Repeat a published result, and compare.",
        epilog="With fewer rounds, epochs or images, the published figure is not to be expected.",
    )
    parser.add_argument("--partition", choices=sorted(PUBLISHED), default="iid")
    parser.add_argument("--rounds", type=int, default=WHOLE.rounds)
    parser.add_argument("--local-epochs", type=int, default=WHOLE.local_epochs)
    parser.add_argument("--share", type=float, default=WHOLE.share, help="of the images, to 1")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--fashion-mnist", type=Path, default=FASHION_MNIST, metavar="DIR")
    parser.add_argument("--state-dir", type=Path, default=ROOT / ".state" / "reproduce")
    options = parser.parse_args(arguments)
    if not 0.001 <= options.share <= 1:
        parser.error("--share is from 0.001 to 1")
    part = Part(options.rounds, options.local_epochs, options.share)
    began = time.monotonic()
    try:
        federation = run(options, part)
        if federation["status"] != "completed":
            console.print(f"[red]it {federation['status']}: {federation['reason']}[/]")
            return 1
        difference = compare(federation, options.partition)
    finally:
        demo.stop(options.state_dir.absolute())
    minutes = (time.monotonic() - began) / 60
    console.print(f"  all of this took {minutes:.0f} minutes")
    if part != WHOLE:
        console.print("  a part of the published setting: there is nothing to compare it with")
        return 0
    return 0 if difference <= WITHIN else 1


if __name__ == "__main__":
    sys.exit(main())
