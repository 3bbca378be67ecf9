"""Whole trainings in one process: what the defaults reach, and against what."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from scripts.baselines import (
    Bench,
    bench,
    compare,
    evaluate_checkpoint,
    main,
    references,
    weighted_mean,
)
from scripts.prepare_data import prepare

NO_FASHION_MNIST = Path("no Fashion-MNIST here")


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hospital")
    prepare("hospital", out, 7)
    return out


def federate(opened: Bench, rounds: int, seed: int) -> dict[str, bytes]:
    model = opened.train(list(opened.sites.values()), rounds, seed)
    return {name: array.tobytes() for name, array in model.items()}


def test_defaults_train_hospital_and_beat_every_hospital_alone(hospital: Path) -> None:
    compared = compare(hospital, rounds=10, seed=1)
    federated = compared.federated[-1].pooled
    assert len(compared.federated) == 10
    assert federated.rows == 274
    assert federated.accuracy > 0.77
    assert federated.auroc is not None
    assert federated.auroc > 0.85
    assert compared.pooled.pooled.accuracy > 0.77
    for alone in compared.alone.values():
        assert alone.pooled.loss > federated.loss


def test_fedprox_trains_too(hospital: Path) -> None:
    with bench(hospital, {"proximal-mu": 0.1}) as opened:
        score = opened.score(opened.train(list(opened.sites.values()), 10, 1)).pooled
    assert score.accuracy > 0.77


def test_defaults_train_digits_in_five_rounds(tmp_path: Path) -> None:
    prepare("vision", tmp_path, 7, fashion_mnist=NO_FASHION_MNIST)
    with bench(tmp_path) as opened:
        score = opened.score(opened.train(list(opened.sites.values()), 5, 1)).pooled
    assert score.accuracy > 0.9
    assert score.auroc is None


def test_references_are_the_same_with_and_without_a_proximal_term(hospital: Path) -> None:
    quick = {"local-epochs": 1}
    assert references(hospital, 1, 1, quick) == references(
        hospital, 1, 1, {**quick, "proximal-mu": 0.5}
    )


def test_same_seed_trains_the_same_bytes(hospital: Path) -> None:
    with bench(hospital) as opened:
        assert federate(opened, 2, 1) == federate(opened, 2, 1) != federate(opened, 2, 2)


def test_checkpoint_on_disk_scores_as_the_model_it_holds(hospital: Path, tmp_path: Path) -> None:
    with bench(hospital) as opened:
        model = opened.train(list(opened.sites.values()), 1, 1)
        expected = opened.score(model)
    (tmp_path / "final.safetensors").write_bytes(save(model))
    scored = evaluate_checkpoint(hospital, tmp_path / "final.safetensors")
    assert scored == expected
    assert sum(site.rows for site in scored.sites.values()) == scored.pooled.rows


def test_mean_weighs_by_examples_in_float32() -> None:
    replies = [
        ({"w": np.array([0.0, 4.0], np.float32)}, 1.0),
        ({"w": np.array([4.0, 0.0], np.float32)}, 3.0),
    ]
    mean = weighted_mean(replies)["w"]
    assert mean.tolist() == [3.0, 1.0]
    assert mean.dtype == np.float32


@pytest.mark.parametrize("source", ["prepared", "resplit"])
def test_command_prints_every_way_of_training(
    source: str, hospital: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--resplit"] if source == "resplit" else ["--data", str(hospital)]
    quick = ["--rounds", "1", "--local-epochs", "1", "--seeds", "1,2"]
    main(["--app", "hospital", *where, *quick])
    printed = capsys.readouterr().out
    for way in ("federated", "pooled", "cleveland alone", "held-out rows of hungary (88)", "±"):
        assert way in printed


def test_command_wants_one_source_of_data(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--app", "hospital"])
    assert "give --data, or --resplit" in capsys.readouterr().err
