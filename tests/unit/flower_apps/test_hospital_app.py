"""The hospital app, driven through real Flower messages."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from flowerbed.flower_apps.hospital import task
from tests.unit.flower_apps.messages import ask, bytes_of, write_patients

START = task.initial_arrays({"seed": 7})


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return write_patients(tmp_path / "site")


def distance(reply: ArrayRecord) -> float:
    return sum(
        float(np.square(reply[name].numpy() - array.numpy()).sum()) for name, array in START.items()
    )


def test_training_answers_with_arrays_and_metrics(site: Path) -> None:
    reply = ask("hospital", "train", START, site)
    assert list(reply.array_records) == ["arrays"]
    assert list(reply.array_records["arrays"]) == list(START)
    assert {str(a.numpy().dtype) for a in reply.array_records["arrays"].values()} == {"float32"}
    metrics = reply.metric_records["metrics"]
    assert metrics["num-examples"] == 7
    assert set(metrics) == {"num-examples", "train-loss"}
    assert distance(reply.array_records["arrays"]) > 0


def test_asked_for_it_training_tells_how_evenly_the_labels_are_spread(site: Path) -> None:
    reply = ask("hospital", "train", START, site, {"label-entropy": True})
    entropy = reply.metric_records["metrics"]["label-entropy"]
    assert isinstance(entropy, float) and 0 < entropy <= math.log(2)


def test_same_arrays_config_and_data_give_the_same_bytes(site: Path) -> None:
    first = ask("hospital", "train", START, site)
    torch.rand(5)  # whatever else drew numbers in between
    again = ask("hospital", "train", START, site)
    assert bytes_of(first.array_records["arrays"]) == bytes_of(again.array_records["arrays"])
    assert first.metric_records["metrics"] == again.metric_records["metrics"]


def test_another_seed_shuffles_otherwise(site: Path) -> None:
    first = ask("hospital", "train", START, site)
    other = ask("hospital", "train", START, site, {"seed": 12})
    assert bytes_of(first.array_records["arrays"]) != bytes_of(other.array_records["arrays"])


def test_more_local_epochs_fit_the_rows_better(site: Path) -> None:
    few, many = (
        ask("hospital", "train", START, site, {"local-epochs": n}).metric_records["metrics"]
        for n in (1, 20)
    )
    assert isinstance(few["train-loss"], float)
    assert isinstance(many["train-loss"], float)
    assert many["train-loss"] < few["train-loss"]


def test_fedprox_stays_closer_to_the_received_model(site: Path) -> None:
    apart = [
        distance(
            ask(
                "hospital", "train", START, site, {"local-epochs": 10, "proximal-mu": mu}
            ).array_records["arrays"]
        )
        for mu in (0.0, 0.5, 5.0)
    ]
    assert apart[0] > apart[1] > apart[2] > 0


def test_fedprox_adds_half_mu_times_the_distance_to_the_gradient(site: Path) -> None:
    """One step from w: at w the proximal gradient is 0; the second step's is mu * (w1 - w)."""
    mu, rate = 0.5, 0.01
    rows = task.load_rows(site / "train.jsonl")

    def trained(epochs: int, proximal_mu: float) -> list[torch.Tensor]:
        net = task.load_net(START)
        settings = task.Settings(
            local_epochs=epochs,
            batch_size=len(rows),
            learning_rate=rate,
            seed=1,
            proximal_mu=proximal_mu,
        )
        task.train(net, rows, settings)
        return [weights.detach() for weights in net.parameters()]

    start = [weights.detach() for weights in task.load_net(START).parameters()]
    for before, after_one, plain, proximal in zip(
        start, trained(1, mu), trained(2, 0.0), trained(2, mu), strict=True
    ):
        pulled = plain - rate * mu * (after_one - before)
        torch.testing.assert_close(proximal, pulled, rtol=1e-5, atol=1e-7)


def test_evaluation_scores_the_held_out_rows(site: Path) -> None:
    (site / "train.jsonl").unlink()  # evaluation has no business with it
    metrics = ask("hospital", "evaluate", START, site).metric_records["metrics"]
    assert set(metrics) == {"num-examples", "eval-loss", "accuracy", "auroc"}
    assert metrics["num-examples"] == 7


@pytest.mark.parametrize("label", [0, 1])
def test_auroc_is_absent_where_one_class_is_present(tmp_path: Path, label: int) -> None:
    site = write_patients(tmp_path / "site", [label] * 3)
    metrics = ask("hospital", "evaluate", START, site).metric_records["metrics"]
    assert set(metrics) == {"num-examples", "eval-loss", "accuracy"}


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=30).filter(
        lambda rows: len({label for _, label in rows}) == 2
    )
)
def test_auroc_is_the_known_one_with_ties(rows: list[tuple[int, bool]]) -> None:
    scores, labels = zip(*rows, strict=True)
    ours = task.auroc(torch.tensor(scores, dtype=torch.float32), torch.tensor(labels).float())
    assert ours == pytest.approx(roc_auc_score(labels, scores))


def test_labels_and_missing_values_are_read_as_written(tmp_path: Path) -> None:
    record = {"features": [None] * 13, "label": 1}
    (tmp_path / "train.jsonl").write_text(json.dumps(record) + "\n\n")
    rows = task.load_rows(tmp_path / "train.jsonl")
    assert rows.labels.tolist() == [1.0]
    assert rows.inputs.dtype == torch.float32
    assert rows.inputs[0, -13:].tolist() == [1.0] * 13


def test_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("\n")
    with pytest.raises(ValueError, match=r"train.jsonl holds no record"):
        ask("hospital", "train", START, tmp_path)


def test_arrays_of_another_model_are_refused(site: Path) -> None:
    with pytest.raises(RuntimeError, match="Missing key"):
        ask("hospital", "train", ArrayRecord({"weights": START["output.bias"]}), site)


def test_initial_arrays_leave_the_process_own_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    task.initial_arrays({"seed": 7})
    assert torch.rand(1) == expected
