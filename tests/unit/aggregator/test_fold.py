"""The fold: a weighted mean, whose bytes depend on updates, weights and order alone."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from safetensors.numpy import load_file, save_file

from flowerbed.aggregator.fold import Accumulator, MeanNotFinite, write_checkpoint
from flowerbed.aggregator.strategies import StrategyState, strategy_of
from flowerbed.aggregator.tensors import TensorFile
from flowerbed.contracts.spec import Strategy as StrategySpec
from tests.support.models import Model, model, stored

WEIGHTS = (303, 261, 46, 130)


def fold(tmp_path: Path, updates: list[Model], weights: tuple[int, ...]) -> tuple[Path, str]:
    paths = [stored(tmp_path / str(place), update) for place, update in enumerate(updates)]
    with TensorFile(paths[0]) as base:
        accumulator = Accumulator(base.tensors)
        for path, weight in zip(paths, weights, strict=True):
            with TensorFile(path) as update:
                accumulator.add(update, weight)
        out = tmp_path / "out.safetensors"
        sha256, size = write_checkpoint(out, base.tensors, accumulator.mean())
    assert size == out.stat().st_size
    return out, sha256


def test_it_equals_flowers_own_mean(tmp_path: Path) -> None:
    updates = [model(seed) for seed in range(4)]
    records = [
        RecordDict(
            {
                "arrays": ArrayRecord(
                    {
                        name: Array(np.asarray(array))
                        for name, array in update.items()
                        if array.dtype != np.int64  # Flower would make a float of it
                    }
                ),
                "metrics": MetricRecord({"num-examples": weight}),
            }
        )
        for update, weight in zip(updates, WEIGHTS, strict=True)
    ]
    theirs = aggregate_arrayrecords(records, "num-examples")
    path, sha256 = fold(tmp_path, updates, WEIGHTS)
    ours = load_file(path)
    for name, array in theirs.items():
        tolerance = 1e-6 if ours[name].dtype == np.float32 else 2e-3
        np.testing.assert_allclose(ours[name], array.numpy(), rtol=tolerance, atol=tolerance)
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_integers_are_averaged_and_rounded(tmp_path: Path) -> None:
    updates: list[Model] = [
        {"n": np.array([0, 2**40], np.int64)},
        {"n": np.array([3, 2**40], np.int64)},
    ]
    path, _ = fold(tmp_path, updates, (1, 1))
    assert load_file(path)["n"].tolist() == [2, 2**40]


def test_the_mean_of_one_update_is_that_update(tmp_path: Path) -> None:
    path, _ = fold(tmp_path, [model(1)], (1,))
    for name, array in load_file(path).items():
        np.testing.assert_array_equal(array, model(1)[name])


def test_an_overflowing_mean_is_refused(tmp_path: Path) -> None:
    with TensorFile(stored(tmp_path / "base", {"h": np.ones(2, np.float16)})) as base:
        accumulator = Accumulator(base.tensors)
        accumulator.add(base, 1)
        tensors = {"h": accumulator.mean()["h"] * np.float32(1e6)}
        with pytest.raises(MeanNotFinite, match="the mean of tensor h is not finite"):
            write_checkpoint(tmp_path / "out", base.tensors, tensors)


@pytest.mark.parametrize(
    "spec", [StrategySpec(name="fedavg"), StrategySpec(name="fedprox", params={"proximal_mu": 0.1})]
)
def test_fedavg_and_fedprox_take_the_mean_as_it_is(tmp_path: Path, spec: StrategySpec) -> None:
    mean = {"w": np.ones(3, np.float32)}
    save_file({"w": np.zeros(3, np.float32)}, tmp_path / "base")
    state = StrategyState(strategy=spec.name, params=spec.params, round_number=3, seed=7, base="b")
    with TensorFile(tmp_path / "base") as base:
        finished, after = strategy_of(spec).finish(mean, base, state)
    assert finished is mean
    assert after == state


def test_a_strategys_state_is_canonical() -> None:
    state = StrategyState(
        strategy="fedprox", params={"proximal_mu": 0.1}, round_number=3, seed=7, base="b"
    )
    assert state.resulting_in("c").encode() == (
        b'{"base":"b","checkpoint":"c","format":"flowerbed-strategy-state/v1",'
        b'"params":{"proximal_mu":0.1},"round_number":3,"seed":7,"strategy":"fedprox"}'
    )
