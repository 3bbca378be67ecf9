"""A strategy in a process of its own: what it is told, what it keeps, and what it may not do."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from flowerbed.flower_apps import aggregate_own
from flowerbed.flower_apps.aggregate_own import NoStrategy
from tests.support.strategies import STRATEGY


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An app's folder, and the files of a round."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(STRATEGY)
    for name, value in {"base": 0, "first": 1, "second": 4}.items():
        save_file({"weights": np.full(3, value, np.float32)}, tmp_path / name)
    return tmp_path


def aggregate(folder: Path, name: str, **changed: Any) -> dict[str, float] | None:
    """The strategy's metrics of a round of two clients."""
    job = {
        "reference": f"mine:{name}",
        "folder": str(folder),
        "params": {},
        "config": {"optimizer.name": "sgd"},
        "order": {"learning-rate": 0.1},
        "seed": 7,
        "exchange": "train",
        "round_number": 1,
        "base": str(folder / "base"),
        "replies": [
            {"place": place, "n_examples": n, "metrics": {"loss": n / 4}, "arrays": str(file)}
            for place, (n, file) in enumerate([(1, folder / "first"), (2, folder / "second")])
        ],
        "state": None,
        "arrays": str(folder / "arrays"),
        "kept": str(folder / "kept"),
        "said": str(folder / "said"),
        **changed,
    }
    (folder / "job.json").write_text(json.dumps(job))
    aggregate_own.main(["--job", str(folder / "job.json")])
    metrics: dict[str, float] | None = said(folder)["metrics"]
    return metrics


def said(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "said").read_text())
    return found


def test_a_class_a_factory_and_an_instance_will_do(folder: Path) -> None:
    for name, params in (("Restless", {"pace": 0.5}), ("make", {"pace": 0.5}), ("restless", {})):
        assert aggregate(folder, name, params=params) == {"n-seen": 1}
        weights = load_file(folder / "arrays")["weights"]
        assert weights.dtype == np.float32 and np.all((weights >= 3) & (weights < 4))


def test_what_it_keeps_it_has_in_the_next_round_and_the_same_bytes_come_of_the_same(
    folder: Path,
) -> None:
    aggregate(folder, "Restless")
    first = folder / "kept-1"
    (folder / "kept").rename(first)
    seen = []
    for _ in range(2):
        again = {"round_number": 2, "state": str(first)}
        assert aggregate(folder, "Restless", **again) == {"n-seen": 2}
        seen.append(((folder / "arrays").read_bytes(), (folder / "kept").read_bytes()))
    assert seen[0] == seen[1]
    assert load_file(folder / "arrays")["weights"][0] > 4  # 3, and half of what it remembers


def test_it_sums_up_an_evaluation_and_says_what_is_forgotten(folder: Path) -> None:
    assert aggregate(folder, "Restless", exchange="evaluate") == {"worst": 0.5}
    assert not (folder / "kept").exists() and not (folder / "arrays").exists()
    assert not said(folder)["forgets"]
    assert aggregate(folder, "Counting", exchange="evaluate") == {"n": 1}
    assert said(folder)["forgets"]


def test_one_that_keeps_nothing_and_gives_nothing_leaves_no_file(folder: Path) -> None:
    assert aggregate(folder, "Silent") is None
    assert not (folder / "kept").exists() and not (folder / "arrays").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Loud", "round 1: the strategy would tell its clients {'learning-rate': 0.05}, and they"),
        ("Other", "round 1: the strategy would send other arrays than the base"),
        ("Holding", "attribute guard (lock) of the strategy cannot be kept from round"),
        ("Sending", "the strategy asks its grid for send_and_receive: rounds are not its to send"),
        ("np", "mine:np is module, no Strategy and no factory"),
        ("MetricRecord", "mine:MetricRecord gave MetricRecord, not a Strategy"),
    ],
)
def test_one_that_cannot_be_driven_says_why(folder: Path, name: str, words: str) -> None:
    with pytest.raises(NoStrategy) as told:
        aggregate(folder, name)
    assert str(told.value).startswith(words)


def test_an_instance_takes_no_params(folder: Path) -> None:
    with pytest.raises(NoStrategy, match="mine:restless is an instance: it takes no params"):
        aggregate(folder, "restless", params={"pace": 1})
