"""The synthetic app, driven through real Flower messages."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord

from flowerbed.flower_apps.initialize import write_initial_checkpoint
from flowerbed.flower_apps.synthetic import task
from tests.unit.flower_apps.messages import Config, ask, bytes_of

NOWHERE = Path("no data here")
NOW: Config = {"train-seconds": 0.0}


def model(elements: int = 1000, tensors: int = 3) -> ArrayRecord:
    return task.initial_arrays({"seed": 7, "elements": elements, "tensors": tensors})


def trained(seed: int = 11, partition: str = "0") -> dict[str, bytes]:
    config = {**NOW, "seed": seed}
    reply = ask("synthetic", "train", model(), NOWHERE, config, **{"partition-id": partition})
    return bytes_of(reply.array_records["arrays"])


def test_model_has_as_many_elements_as_are_asked_for_spread_over_the_tensors() -> None:
    arrays = model(10, 3)
    assert [array.shape for array in arrays.values()] == [(4,), (3,), (3,)]
    assert {array.dtype for array in arrays.values()} == {"float32"}
    assert list(arrays) == sorted(arrays)


@pytest.mark.parametrize("tensors", [0, 11])
def test_tensors_without_an_element_are_refused(tensors: int) -> None:
    with pytest.raises(ValueError, match=f"10 elements cannot be spread over {tensors} tensors"):
        model(10, tensors)


def test_training_answers_with_arrays_and_examples_and_reads_no_data() -> None:
    reply = ask("synthetic", "train", model(), NOWHERE, NOW)
    assert list(reply.array_records["arrays"]) == list(model())
    assert dict(reply.metric_records["metrics"]) == {"num-examples": 4}


def test_every_weight_takes_a_small_step() -> None:
    reply = ask("synthetic", "train", model(200_000, 2), NOWHERE, {**NOW, "learning-rate": 0.01})
    for before, after in zip(
        model(200_000, 2).values(), reply.array_records["arrays"].values(), strict=True
    ):
        step = after.numpy() - before.numpy()
        assert np.count_nonzero(step) > 0.99 * step.size
        assert float(np.abs(step).max()) < 0.06


def test_same_arrays_and_config_give_the_same_bytes() -> None:
    assert trained() == trained()


def test_clients_take_different_steps_by_their_seed_or_their_partition() -> None:
    steps = [trained(), trained(seed=12), trained(partition="1")]
    assert len({step["tensor-000000"] for step in steps}) == 3


def test_training_takes_as_long_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    ask("synthetic", "train", model(), NOWHERE, {"train-seconds": 30.0})
    assert slept == [pytest.approx(30.0, abs=5.0)]


def test_training_holds_little_more_than_one_model() -> None:
    size = 4 * 1_000_000
    tracemalloc.start()
    try:
        arrays = model(1_000_000, 8)
        settings = task.Settings(train_seconds=0.0, n_examples=1, learning_rate=0.1, seed=1)
        tracemalloc.reset_peak()
        task.train(arrays, settings)
        assert tracemalloc.get_traced_memory()[1] < 1.5 * size
    finally:
        tracemalloc.stop()


def test_making_the_initial_checkpoint_holds_little_more_than_one_model(tmp_path: Path) -> None:
    size = 4 * 1_000_000
    config = {"elements": 1_000_000, "tensors": 8}
    tracemalloc.start()
    try:
        write_initial_checkpoint("synthetic", 1, config, tmp_path / "base")
        assert tracemalloc.get_traced_memory()[1] < 1.5 * size
    finally:
        tracemalloc.stop()
    assert (tmp_path / "base").stat().st_size > size


def test_evaluation_measures_the_weights() -> None:
    metrics = ask("synthetic", "evaluate", model(), NOWHERE, NOW).metric_records["metrics"]
    weights = np.concatenate([array.numpy() for array in model().values()]).astype(np.float64)
    assert metrics["num-examples"] == 4
    assert metrics["mean-square"] == pytest.approx(np.mean(np.square(weights)))


def test_app_starts_without_torch() -> None:
    code = (
        "import sys; from flowerbed.flower_apps.registry import load_client_app;"
        " load_client_app('synthetic'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
