"""Accuracy against bytes: each form of update on trained steps, over several seeds.

    python -m scripts.bench.updates --rounds 15 --seeds 1,2,3

The `vision` app's own training at four sites (Fashion-MNIST where it is installed, scikit-learn's
digits otherwise; dealt unevenly). Every update goes through the files that travel: encoded as a
site's worker does it, decoded and folded as the aggregator does it. Prints a table; writes nothing.

The last rows tune a model that was trained before, on images of one site turned upside down: whole,
and by adapters of rank 4 at its two dense layers.
"""

import argparse
import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from flowerbed.aggregator.checkpoints import write_checkpoint
from flowerbed.aggregator.decoding import decode_file
from flowerbed.aggregator.fold import Accumulator, InTime
from flowerbed.aggregator.tensors import TensorFile
from flowerbed.flower_apps.encoding import write_encoded
from flowerbed.flower_apps.forms import Form, travels
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
TRAINABLE = ("*.lora_*",)
RANK = 4


class Adapted(torch.nn.Linear):
    """A frozen layer and a step of low rank beside it (Hu et al. 2021, section 4.1)."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features)
        self.load_state_dict(layer.state_dict())
        self.requires_grad_(False)
        self.lora_a = torch.nn.Parameter(torch.empty(RANK, layer.in_features))
        self.lora_b = torch.nn.Parameter(torch.zeros(layer.out_features, RANK))
        torch.nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs) + 2 * (inputs @ self.lora_a.T @ self.lora_b.T)


def plain(seed: int) -> task.Net:
    torch.manual_seed(seed)
    return task.Net()


def adapted(seed: int) -> task.Net:
    net = plain(seed)
    net.requires_grad_(False)
    net.hidden, net.output = Adapted(net.hidden), Adapted(net.output)
    return net


@dataclass(frozen=True, slots=True)
class Case:
    """A row of the table. `is_tuned`: from a model that was trained before."""

    name: str
    form: Form | None
    trainable: Sequence[str] = ()
    is_tuned: bool = False

    def net(self, seed: int) -> task.Net:
        return adapted(seed) if self.trainable else plain(seed)


CASES = (
    *(Case("full" if form is None else form.words, form) for form in FORMS),
    Case("tuned: full", None, is_tuned=True),
    Case("tuned: adapter", None, TRAINABLE, is_tuned=True),
    Case("tuned: adapter, int8 64", Form("int8", 64), TRAINABLE, is_tuned=True),
)


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


def federate(sites: Sites, case: Case, folder: Path, rounds: int, seed: int) -> Run:
    """Train for so many rounds, every update in that form, with what each site left out kept."""
    run, net = Run(), case.net(seed)
    if case.is_tuned:
        net.load_state_dict(_before(sites, seed), strict=False)
    frozen = {name: one.clone() for name, one in net.state_dict().items()}
    base = folder / "base"
    save_file(_arrays(frozen, case), base)
    for number in range(rounds):
        for place, images in enumerate(sites.train):
            _load(net, frozen, base)
            settings = task.Settings(
                local_epochs=1, batch_size=32, learning_rate=0.02, seed=seed * 10_000 + number
            )
            task.train(net, images, settings)
            _send(run, case, _arrays(net.state_dict(), case), base, folder, place)
        _fold(folder, base, [len(images) for images in sites.train])
    _load(net, frozen, base)
    run.accuracy = sites.accuracy(net)
    return run


def _before(sites: Sites, seed: int) -> dict[str, torch.Tensor]:
    """A model that has seen the first site's images upside down."""
    net, images = plain(seed), sites.train[0]
    turned = task.Images(inputs=images.inputs.flip(2), labels=images.labels)
    settings = task.Settings(local_epochs=10, batch_size=32, learning_rate=0.02, seed=seed)
    task.train(net, turned, settings)
    return {name: one.clone() for name, one in net.state_dict().items()}


def _send(
    run: Run, case: Case, arrays: dict[str, Any], base: Path, folder: Path, place: int
) -> None:
    form, update, left = case.form, folder / f"update-{place}", folder / f"left-{place}"
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


def _load(net: task.Net, frozen: dict[str, torch.Tensor], base: Path) -> None:
    trained = {name: torch.from_numpy(one) for name, one in load_file(base).items()}
    net.load_state_dict({**frozen, **trained})


def _arrays(state: dict[str, torch.Tensor], case: Case) -> dict[str, Any]:
    return {
        name: one.detach().numpy().copy()
        for name, one in state.items()
        if travels(name, case.trainable)
    }


def full_size(path: Path) -> int:
    save_file(_arrays(plain(0).state_dict(), CASES[0]), path)
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


def speed(elements: int, folder: Path) -> None:
    """What writing and reading such an update costs, in processor time."""
    rng, base = np.random.default_rng(1), folder / "base"
    weights = (rng.standard_normal(elements) * 0.05).astype(np.float32)
    save_file({"weights": weights}, base)
    new = {"weights": weights + (rng.standard_t(3, elements) * 1e-3).astype(np.float32)}
    print("| form | bytes | written in, s | read in, s |\n|---|---|---|---|", flush=True)
    for form in filter(None, FORMS):
        at = [time.process_time()]
        write_encoded(form, new, (base, SHA), folder / "encoded", None)
        at.append(time.process_time())
        decode_file(form, folder / "encoded", base, SHA, folder / "decoded")
        at.append(time.process_time())
        size = (folder / "encoded").stat().st_size
        print(f"| {form.words} | {size:,} | {at[1] - at[0]:.2f} | {at[2] - at[1]:.2f} |")


def main() -> int:
    parser = argparse.ArgumentParser(description="Accuracy against bytes, by form of update.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--sites", type=int, default=4)
    parser.add_argument("--rows", type=int, default=2000, help="images of all sites together")
    parser.add_argument("--only", help="rows as the table has them, with / between")
    parser.add_argument("--speed", type=int, metavar="N", help="write and read N float32 instead")
    options = parser.parse_args()
    wanted = options.only and options.only.split("/")
    seeds = [int(seed) for seed in options.seeds.split(",")]
    torch.set_num_threads(1)
    scratch = Path(tempfile.mkdtemp(prefix="flowerbed-updates-"))
    try:
        if options.speed:
            speed(options.speed, scratch)
            return 0
        sites = Sites.prepared(scratch / "data", options.sites, options.rows, 7)
        print("| form | accuracy, mean ± sd | bytes an update | times fewer | relative L2 error |")
        print("|---|---|---|---|---|", flush=True)
        full = full_size(scratch / "full")
        for case in CASES:
            if wanted and case.name not in wanted:
                continue
            runs = []
            for seed in seeds:
                folder = scratch / f"{case.name}-{seed}"
                folder.mkdir()
                runs.append(federate(sites, case, folder, options.rounds, seed))
                shutil.rmtree(folder)
            print(row(case.name, runs, full), flush=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
