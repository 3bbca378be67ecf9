#!/usr/bin/env python
"""What federated training is worth: beside each site training alone, and beside pooled training.

    python scripts/baselines.py --app hospital --data DIR --rounds 10 --seeds 1,2,3,4,5

All three run the same Flower app in this process, for the same number of passes over the rows:
alone and pooled are federations of one. Every score is on rows held out from everybody, all sites'
together unless it says otherwise. Pooling copies the sites' rows into one temporary folder, which
is what a federation avoids; it is here to be compared with.
"""

import argparse
import hashlib
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray
from safetensors.numpy import load

if __package__ in (None, ""):  # run as a file: the repository's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from flowerbed.flower_apps.initialize import initial_checkpoint
from flowerbed.flower_apps.messages import CONTROL_PREFIX
from flowerbed.flower_apps.registry import BUILTIN, find, load_client_app
from scripts.prepare_data import prepare

Model = dict[str, NDArray[np.float32]]
Config = Mapping[str, bool | float | int | str]


@dataclass(frozen=True, slots=True)
class Score:
    rows: int
    loss: float
    accuracy: float
    auroc: float | None  # None where only one class is present, or where there are more than two


@dataclass(frozen=True, slots=True)
class Scores:
    """A model's score on all held-out rows together, and on each site's."""

    pooled: Score
    sites: dict[str, Score]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One seed: the same model trained three ways."""

    seed: int
    federated: list[Scores]  # after every round
    pooled: Scores
    alone: dict[str, Scores]  # by the site that trained alone


@dataclass(frozen=True, slots=True)
class Bench:
    """An app, the sites' folders, and a folder with all their rows."""

    app: str
    sites: dict[str, Path]
    everyone: Path
    config: Config = field(default_factory=dict)

    def initial(self, seed: int) -> Model:
        return load(initial_checkpoint(self.app, seed, self.config))

    def score(self, model: Model) -> Scores:
        return Scores(
            pooled=self._score(model, self.everyone),
            sites={name: self._score(model, folder) for name, folder in self.sites.items()},
        )

    def train(
        self,
        folders: Sequence[Path],
        rounds: int,
        seed: int,
        on_round: Callable[[Model], None] = lambda model: None,
    ) -> Model:
        """FedAvg over the folders; over one folder it is plain training."""
        model = self.initial(seed)
        for number in range(1, rounds + 1):
            replies = [
                self._train_once(model, folder, number, client_seed(seed, number, place))
                for place, folder in enumerate(folders)
            ]
            model = weighted_mean(replies)
            on_round(model)
        return model

    def _train_once(
        self, model: Model, folder: Path, number: int, seed: int
    ) -> tuple[Model, float]:
        config = {**self.config, "seed": seed, "server-round": number}
        reply = self._ask("train", model, folder, config)
        arrays = reply.array_records["arrays"]
        trained = {name: array.numpy() for name, array in arrays.items()}
        return trained, _number(reply.metric_records["metrics"], "num-examples")

    def _score(self, model: Model, folder: Path) -> Score:
        metrics = self._ask("evaluate", model, folder, self.config).metric_records["metrics"]
        return Score(
            rows=int(_number(metrics, "num-examples")),
            loss=_number(metrics, "eval-loss"),
            accuracy=_number(metrics, "accuracy"),
            auroc=_number(metrics, "auroc") if "auroc" in metrics else None,
        )

    def _ask(self, kind: str, model: Model, folder: Path, config: Config) -> RecordDict:
        # flwr's Message wants to know the process's task; a deployed node's runtime sets these.
        TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1
        arrays = ArrayRecord({name: Array(array) for name, array in model.items()})
        content = RecordDict({"arrays": arrays, "config": ConfigRecord(dict(config))})
        context = Context(
            run_id=1,
            node_id=1,
            node_config={"data-path": str(folder)},
            state=RecordDict(),
            run_config=find(self.app).default_config(),
        )
        message = Message(content, dst_node_id=1, message_type=kind)
        return load_client_app(self.app)(message, context).content


@contextmanager
def bench(data: Path, config: Config | None = None) -> Iterator[Bench]:
    """Open the folder that prepare_data wrote; the pooled rows are gone when it closes."""
    described = json.loads((data / "sites.json").read_text())
    sites = {site["name"]: data / site["name"] for site in described["sites"]}
    with tempfile.TemporaryDirectory(prefix="flowerbed-pooled-") as folder:
        _pool(list(sites.values()), Path(folder))
        defaults = find(described["app"]).default_config()
        yield Bench(described["app"], sites, Path(folder), {**defaults, **(config or {})})


def evaluate_checkpoint(data: Path, checkpoint: Path) -> Scores:
    """Score a safetensors checkpoint on the held-out rows of all sites, and of each."""
    tensors = load(checkpoint.read_bytes())
    model = {name: one for name, one in tensors.items() if not name.startswith(CONTROL_PREFIX)}
    with bench(data) as opened:
        return opened.score(model)


def compare(data: Path, rounds: int, seed: int, config: Config | None = None) -> Comparison:
    """Train the same model federated, pooled and at each site alone, from the same start."""
    federated: list[Scores] = []
    with bench(data, config) as opened:
        opened.train(
            list(opened.sites.values()),
            rounds,
            seed,
            lambda model: federated.append(opened.score(model)),
        )
    pooled, alone = references(data, rounds, seed, config)
    return Comparison(seed, federated, pooled, alone)


def references(
    data: Path, rounds: int, seed: int, config: Config | None = None
) -> tuple[Scores, dict[str, Scores]]:
    """What a federation stands beside: the model trained on pooled rows, and at each site alone."""
    # One site has no other to stay close to: the proximal term would only slow it down.
    with bench(data, {**(config or {}), "proximal-mu": 0.0}) as opened:
        pooled = opened.score(opened.train([opened.everyone], rounds, seed))
        alone = {
            name: opened.score(opened.train([folder], rounds, seed))
            for name, folder in opened.sites.items()
        }
    return pooled, alone


def client_seed(seed: int, number: int, place: int) -> int:
    """A client's seed in a round depends on its place in the cohort, never on an id."""
    digest = hashlib.sha256(f"{seed}/{number}/{place}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def weighted_mean(replies: Sequence[tuple[Model, float]]) -> Model:
    """The replies' mean by number of examples, added up in the order given."""
    total = sum(weight for _, weight in replies)
    mean: Model = {}
    for name in replies[0][0]:
        added = sum(
            (model[name].astype(np.float64) * (weight / total) for model, weight in replies),
            start=np.zeros(replies[0][0][name].shape),
        )
        mean[name] = added.astype(np.float32)
    return mean


def _number(metrics: MetricRecord, name: str) -> float:
    value = metrics[name]
    assert isinstance(value, int | float)
    return float(value)


def _pool(sites: Sequence[Path], folder: Path) -> None:
    for first in sorted(file for file in sites[0].iterdir() if file.suffix != ".json"):
        parts = [site / first.name for site in sites]
        if first.suffix == ".npz":
            opened = [np.load(part, allow_pickle=False) for part in parts]
            np.savez(
                folder / first.name,
                images=np.concatenate([part["images"] for part in opened]),
                labels=np.concatenate([part["labels"] for part in opened]),
            )
        else:
            (folder / first.name).write_bytes(b"".join(part.read_bytes() for part in parts))


# --- the table --------------------------------------------------------------


def spread(values: Sequence[float | None]) -> str:
    """Mean and standard deviation over seeds, `0.812 ± 0.008`."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = f"{statistics.mean(known):.3f}"
    return f"{mean} ± {statistics.stdev(known):.3f}" if len(known) > 1 else mean


def table(comparisons: Sequence[Comparison]) -> str:
    """Every way of training, over the seeds: on all held-out rows, then on the sites' own."""
    ways: list[tuple[str, list[Score]]] = [
        ("federated", [one.federated[-1].pooled for one in comparisons]),
        ("pooled", [one.pooled.pooled for one in comparisons]),
    ]
    names = list(comparisons[0].alone)
    ways += [(f"{name} alone", [one.alone[name].pooled for one in comparisons]) for name in names]
    lines = ["all held-out rows"] + [_line(way, scores) for way, scores in ways]
    for name in names:
        rows = sorted({one.pooled.sites[name].rows for one in comparisons})
        lines += [
            f"held-out rows of {name} ({'-'.join(map(str, rows[:1] + rows[1:][-1:]))})",
            _line("federated", [one.federated[-1].sites[name] for one in comparisons]),
            _line("pooled", [one.pooled.sites[name] for one in comparisons]),
            _line("alone", [one.alone[name].sites[name] for one in comparisons]),
        ]
    return "\n".join(lines)


def _line(way: str, scores: Sequence[Score]) -> str:
    accuracy = spread([score.accuracy for score in scores])
    auroc = spread([score.auroc for score in scores])
    loss = spread([score.loss for score in scores])
    return f"  {way:<22} accuracy {accuracy:<15}  AUROC {auroc:<15}  loss {loss}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Compare federated, pooled and local training.")
    parser.add_argument("--app", choices=sorted(BUILTIN), required=True)
    parser.add_argument("--data", type=Path, metavar="DIR", help="what prepare_data.py wrote")
    parser.add_argument("--resplit", action="store_true", help="hold out other rows for each seed")
    parser.add_argument("--rounds", type=int, help="the app's default otherwise")
    parser.add_argument("--seeds", default="1,2,3,4,5", help="comma between")
    for name, kind in (
        ("local-epochs", int),
        ("batch-size", int),
        ("learning-rate", float),
        ("proximal-mu", float),
    ):
        parser.add_argument(f"--{name}", type=kind, default=argparse.SUPPRESS)
    chosen = vars(parser.parse_args(arguments))
    app, data, resplit, rounds, seeds = (
        chosen.pop(name) for name in ("app", "data", "resplit", "rounds", "seeds")
    )
    if (data is None) != resplit:
        parser.error("give --data, or --resplit to prepare anew for each seed")
    config = {name.replace("_", "-"): value for name, value in chosen.items()}
    rounds = rounds or int(find(app).default_config()["num-server-rounds"])
    comparisons = []
    for seed in map(int, seeds.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            if resplit:
                prepare(app, Path(folder), seed)
            comparisons.append(compare(data or Path(folder), rounds, seed, config))
        print(f"seed {seed}\n" + table(comparisons[-1:]).split("\nheld-out")[0], flush=True)
    print(f"\nmean ± standard deviation over {len(comparisons)} seeds\n" + table(comparisons))


if __name__ == "__main__":
    main()
