"""The vision app, driven through real Flower messages."""

import math
from pathlib import Path

import numpy as np
import pytest

from flowerbed.flower_apps.vision import task
from tests.unit.flower_apps.messages import ask, bytes_of

START = task.initial_arrays({"seed": 7})


@pytest.fixture
def site(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    for part in ("train", "test"):
        np.savez(
            tmp_path / f"{part}.npz",
            images=rng.integers(0, 256, (9, 28, 28), dtype=np.uint8),
            labels=np.arange(9, dtype=np.uint8),
        )
    return tmp_path


def test_training_answers_with_arrays_and_metrics(site: Path) -> None:
    reply = ask("vision", "train", START, site)
    assert list(reply.array_records["arrays"]) == list(START)
    assert set(reply.metric_records["metrics"]) == {"num-examples", "train-loss"}
    assert reply.metric_records["metrics"]["num-examples"] == 9


def test_asked_for_it_training_tells_how_evenly_the_labels_are_spread(site: Path) -> None:
    reply = ask("vision", "train", START, site, {"label-entropy": True})
    entropy = reply.metric_records["metrics"]["label-entropy"]
    assert isinstance(entropy, float) and entropy == pytest.approx(math.log(9))


def test_same_arrays_config_and_data_give_the_same_bytes(site: Path) -> None:
    first, again = (ask("vision", "train", START, site) for _ in range(2))
    assert bytes_of(first.array_records["arrays"]) == bytes_of(again.array_records["arrays"])
    assert bytes_of(first.array_records["arrays"]) != bytes_of(START)


def test_fedprox_stays_closer_to_the_received_model(site: Path) -> None:
    def distance(mu: float) -> float:
        reply = ask("vision", "train", START, site, {"proximal-mu": mu}).array_records["arrays"]
        return sum(
            float(np.square(reply[name].numpy() - array.numpy()).sum())
            for name, array in START.items()
        )

    assert distance(0.0) > distance(1.0) > 0


def test_evaluation_scores_in_parts_what_it_would_score_at_once(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ask("vision", "evaluate", START, site).metric_records["metrics"]
    monkeypatch.setattr(task, "EVALUATED_AT_ONCE", 4)
    parts = ask("vision", "evaluate", START, site).metric_records["metrics"]
    assert set(whole) == {"num-examples", "eval-loss", "accuracy"}
    assert parts["accuracy"] == whole["accuracy"]
    assert parts["eval-loss"] == pytest.approx(whole["eval-loss"])


def test_empty_file_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", images=np.zeros((0, 28, 28), np.uint8), labels=np.zeros(0))
    with pytest.raises(ValueError, match=r"train.npz holds no image"):
        ask("vision", "train", START, tmp_path)


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", images=np.zeros((2, 8, 8), np.uint8), labels=np.zeros(2))
    with pytest.raises(ValueError, match=r"\(2, 8, 8\), the model wants \(2, 28, 28\)"):
        ask("vision", "train", START, tmp_path)
