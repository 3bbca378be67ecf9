"""Accuracy against bytes: each form of update on trained steps, over several seeds.

    python -m scripts.bench.updates --rounds 15 --seeds 1,2,3

The `vision` app's own training at four sites (Fashion-MNIST where it is installed, scikit-learn's
digits otherwise; dealt unevenly). Every update goes through the files that travel: encoded as a
site's worker does it, decoded and folded as the aggregator does it. Prints a table; writes nothing.
"""

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import load_file, save_file

from flowerbed.aggregator.checkpoints import write_checkpoint
from flowerbed.aggregator.decoding import decode_file
from flowerbed.aggregator.fold import Accumulator, InTime
from flowerbed.aggregator.tensors import TensorFile
from flowerbed.flower_apps.encoding import write_encoded
from flowerbed.flower_apps.forms import Form
from flowerbed.flower_apps.vision import task
from scripts.prepare_data import prepare

FORMS: tuple[Form | None, ...] = (
    None,
    Form("delta"),
    Form("bfloat16"),
    Form("int8", 1024),
    Form("int8", 64),
    Form("top_k", fraction=0.1),
    Form("top_k", fraction=0.01),
    Form("top_k", fraction=0.001),
)
SHA = "0" * 64


@dataclass(slots=True)
class Run:
    """Of one form and seed. `errors` and `sizes`: one an update."""

    accuracy: float = 0.0
    errors: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Sites:
    train: Sequence[task.Images]
    test: Sequence[task.Images]

    @classmethod
    def prepared(cls, folder: Path, n_sites: int, n_rows: int, seed: int) -> "Sites":
        names = [
            one["name"]
            for one in prepare("vision", folder, seed, n_sites=n_sites, n_rows=n_rows)["sites"]
        ]
        return cls(
            [task.load_images(folder / name / "train.npz") for name in names],
            [task.load_images(folder / name / "test.npz") for name in names],
        )

    def accuracy(self, net: task.Net) -> float:
        """Over the held-out images of all sites together."""
        scores = [task.evaluate(net, images)["accuracy"] * len(images) for images in self.test]
        return sum(scores) / sum(len(images) for images in self.test)


def federate(sites: Sites, form: Form | None, folder: Path, rounds: int, seed: int) -> Run:
    """Train for so many rounds, every update in that form, with what each site left out kept."""
    run, base = Run(), folder / "base"
    torch.manual_seed(seed)
    save_file(_arrays(task.Net()), base)
    for number in range(rounds):
        for place, images in enumerate(sites.train):
            net = _net(base)
            settings = task.Settings(
                local_epochs=1, batch_size=32, learning_rate=0.02, seed=seed * 10_000 + number
            )
            task.train(net, images, settings)
            _send(run, form, _arrays(net), base, folder, place)
        _fold(folder, base, [len(images) for images in sites.train])
    run.accuracy = sites.accuracy(_net(base))
    return run


def _send(
    run: Run, form: Form | None, arrays: dict[str, Any], base: Path, folder: Path, place: int
) -> None:
    update, left = folder / f"update-{place}", folder / f"left-{place}"
    if form is None:
        save_file(arrays, update)
        run.sizes.append(update.stat().st_size)
        run.errors.append(0.0)
        return
    encoded, kept = folder / "encoded", left if left.exists() else None
    error, rest = write_encoded(form, arrays, (base, SHA), encoded, kept)
    if rest:
        save_file(rest, left)
    decode_file(form, encoded, base, SHA, update)
    run.sizes.append(encoded.stat().st_size)
    run.errors.append(error)


def _fold(folder: Path, base: Path, weights: Sequence[int]) -> None:
    with TensorFile(base) as file:
        layout, sums = file.tensors, Accumulator(file.tensors)
    for place, weight in enumerate(weights):
        with TensorFile(folder / f"update-{place}") as update:
            sums.add(InTime(update, weight))
    write_checkpoint(folder / "next", layout, sums.mean())
    (folder / "next").replace(base)


def _net(path: Path) -> task.Net:
    net = task.Net()
    net.load_state_dict({name: torch.from_numpy(one) for name, one in load_file(path).items()})
    return net


def _arrays(net: torch.nn.Module) -> dict[str, Any]:
    return {name: one.detach().numpy().copy() for name, one in net.state_dict().items()}


def name_of(form: Form | None) -> str:
    return "full" if form is None else form.words


def full_size(path: Path) -> int:
    save_file(_arrays(task.Net()), path)
    return path.stat().st_size


def row(name: str, runs: Sequence[Run], full: float) -> str:
    scores = [run.accuracy for run in runs]
    size = statistics.fmean(size for run in runs for size in run.sizes)
    error = statistics.fmean(error for run in runs for error in run.errors)
    spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
    return (
        f"| {name} | {statistics.fmean(scores):.4f} ± {spread:.4f} | {size:,.0f} |"
        f" {full / size:.2f} | {error:.2g} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Accuracy against bytes, by form of update.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--sites", type=int, default=4)
    parser.add_argument("--rows", type=int, default=4000, help="images of all sites together")
    parser.add_argument("--only", help="forms as the table has them, with commas between")
    options = parser.parse_args()
    wanted = options.only and options.only.split(",")
    seeds = [int(seed) for seed in options.seeds.split(",")]
    torch.set_num_threads(1)
    scratch = Path(tempfile.mkdtemp(prefix="flowerbed-updates-"))
    try:
        sites = Sites.prepared(scratch / "data", options.sites, options.rows, 7)
        print("| form | accuracy, mean ± sd | bytes an update | times fewer | relative L2 error |")
        print("|---|---|---|---|---|", flush=True)
        full = full_size(scratch / "full")
        for form in FORMS:
            if wanted and name_of(form) not in wanted:
                continue
            runs = []
            for seed in seeds:
                folder = scratch / f"{form}-{seed}"
                folder.mkdir()
                runs.append(federate(sites, form, folder, options.rounds, seed))
                shutil.rmtree(folder)
            print(row(name_of(form), runs, full), flush=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
