"""The fold: a weighted mean, whose bytes depend on updates, weights and order alone."""

import hashlib
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from safetensors.numpy import load_file, save_file

from flowerbed.aggregator.checkpoints import MeanNotFinite, write_checkpoint
from flowerbed.aggregator.fold import (
    Accumulator,
    Fold,
    InTime,
    NothingWeighs,
    scale_of,
)
from flowerbed.aggregator.optimizers import Moments
from flowerbed.aggregator.strategies import StrategyState, strategy_of, weight_of
from flowerbed.aggregator.tensors import TensorFile
from flowerbed.contracts.strategies import Weighting
from flowerbed.contracts.strategy import Strategy as StrategySpec
from flowerbed.contracts.update import UpdateAccepted
from flowerbed.contracts.values import ArtifactRef
from tests.support.models import Model, model, stored

WEIGHTS = (303, 261, 46, 130)


def fold(tmp_path: Path, updates: list[Model], weights: tuple[int, ...]) -> tuple[Path, str]:
    paths = [stored(tmp_path / str(place), update) for place, update in enumerate(updates)]
    with TensorFile(paths[0]) as base:
        accumulator = Accumulator(base.tensors)
        for path, weight in zip(paths, weights, strict=True):
            with TensorFile(path) as update:
                accumulator.add(InTime(update, weight))
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


@pytest.mark.parametrize("count", [2, 20, 50])
def test_it_is_as_near_to_float64_as_float32_allows(tmp_path: Path, count: int) -> None:
    """One product, `count` - 1 sums and one quotient an element, each with a relative error of at
    most u = 2^-24: together at most gamma = k u / (1 - k u) of sum |w x| / W, k = `count` + 1
    (Higham 2002, "Accuracy and Stability of Numerical Algorithms", lemma 3.1)."""
    dice = np.random.default_rng(count)
    values = [dice.standard_normal(200_000, np.float32) for _ in range(count)]
    weights = tuple(int(weight) for weight in dice.integers(1, 5000, count))
    path, _ = fold(tmp_path, [{"w": array} for array in values], weights)
    exact = np.average(np.asarray(values, np.float64), axis=0, weights=weights)
    size = np.average(np.abs(np.asarray(values, np.float64)), axis=0, weights=weights)
    k = (count + 1) * 2.0**-24
    assert np.all(np.abs(load_file(path)["w"] - exact) <= k / (1 - k) * size)


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


@pytest.mark.parametrize("n_threads", [1, 3])
def test_together_or_one_after_the_other_by_any_number_of_threads_the_bytes_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_threads: int
) -> None:
    monkeypatch.setattr("flowerbed.aggregator.fold.FOLD_BLOCK", 100)
    monkeypatch.setattr("flowerbed.aggregator.fold.N_THREADS", n_threads)
    updates = [model(seed) for seed in range(4)]
    _, expected = fold(tmp_path, updates, WEIGHTS)
    with ExitStack() as files:
        opened = [files.enter_context(TensorFile(tmp_path / str(n))) for n in range(4)]
        together = Accumulator(opened[0].tensors)
        together.add(*map(InTime, opened, WEIGHTS))
        out = tmp_path / "together"
        sha256, _ = write_checkpoint(out, opened[0].tensors, together.mean())
    assert (sha256, together.total) == (expected, sum(WEIGHTS))


def test_an_overflowing_mean_is_refused(tmp_path: Path) -> None:
    with TensorFile(stored(tmp_path / "base", {"h": np.ones(2, np.float16)})) as base:
        accumulator = Accumulator(base.tensors)
        accumulator.add(InTime(base, 1))
        tensors = {"h": accumulator.mean()["h"] * np.float32(1e6)}
        with pytest.raises(MeanNotFinite, match="the mean of tensor h is not finite"):
            write_checkpoint(tmp_path / "out", base.tensors, tensors)


@pytest.mark.parametrize(
    "spec", [StrategySpec(name="fedavg"), StrategySpec(name="fedprox", params={"proximal_mu": 0.1})]
)
def test_fedavg_and_fedprox_take_the_mean_as_it_is(tmp_path: Path, spec: StrategySpec) -> None:
    mean = {"w": np.ones(3, np.float32)}
    save_file({"w": np.zeros(3, np.float32)}, tmp_path / "base")
    with TensorFile(tmp_path / "base") as base:
        moments = Moments(None, tmp_path / "moments")
        finished, kept = strategy_of(spec, 3).finish(mean, base, moments)
    assert finished is mean
    assert kept is None


def test_a_strategys_state_is_canonical() -> None:
    state = StrategyState(
        strategy="fedprox",
        params={"proximal_mu": 0.1},
        round_number=3,
        seed=7,
        base="b",
        checkpoint="c",
    )
    assert state.encode() == (
        b'{"base":"b","checkpoint":"c","format":"flowerbed-strategy-state/v1",'
        b'"params":{"proximal_mu":0.1},"round_number":3,"seed":7,"strategy":"fedprox"}'
    )
    assert b'"moments":"d"' in replace(state, moments="d").encode()


# --- late updates -------------------------------------------------------------------------------


class Files:
    """Updates by client id, and bases by digest, that lie in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fetch(self, update: UpdateAccepted) -> Path:
        return self.folder / update.client_id

    def fetch_base(self, base: ArtifactRef) -> Path:
        return self.folder / base.uri

    def drop(self, update: UpdateAccepted) -> None:
        pass


def accepted(client_id: str, place: int, n_examples: int, staleness: int = 0) -> UpdateAccepted:
    return UpdateAccepted(
        federation_id="fed-1",
        round_number=5,
        attempt=1,
        exchange="train",
        client_id=client_id,
        work_id=client_id,
        place=place,
        artifact=None,
        n_examples=n_examples,
        staleness=staleness,
        base=ArtifactRef(uri="then", sha256="0" * 64, size=1) if staleness else None,
    )


def folded(folder: Path, updates: list[UpdateAccepted], exponent: float) -> Model:
    one = Fold(folder / "now", Files(folder), exponent)
    one.fold(updates)
    assert one.places == tuple(update.place for update in updates)
    return one.accumulator.mean()


@pytest.fixture
def garden(tmp_path: Path) -> Path:
    for seed, name in enumerate(("now", "then", "prompt", "late")):
        stored(tmp_path / name, model(seed))
    return tmp_path


def test_a_late_update_counts_as_its_scaled_step_from_the_base_of_now(garden: Path) -> None:
    mean = folded(garden, [accepted("prompt", 0, 30), accepted("late", 1, 10, 3)], exponent=0.5)
    now, then, prompt, late = (
        {name: array.astype(np.float64) for name, array in model(seed).items()} for seed in range(4)
    )
    for name, array in mean.items():
        wanted = (30 * prompt[name] + 10 * (now[name] + 0.5 * (late[name] - then[name]))) / 40
        np.testing.assert_allclose(array, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("staleness", "exponent", "scale"),
    [(0, 0.5, 1.0), (0, 3.0, 1.0), (1, 1.0, 0.5), (3, 0.5, 0.5), (9, 0.0, 1.0)],
)
def test_the_scale_falls_with_the_staleness(staleness: int, exponent: float, scale: float) -> None:
    assert scale_of(staleness, exponent) == scale


def test_an_update_in_time_counts_exactly_as_it_is(garden: Path) -> None:
    """Not as base + (update - base), which rounds."""
    mean = folded(garden, [accepted("prompt", 0, 1)], exponent=0.5)
    for name, array in mean.items():
        np.testing.assert_array_equal(array, model(2)[name])


@pytest.mark.parametrize(
    ("weighting", "weights"),
    [
        ({}, (30, 10)),
        ({"examples": False}, (1, 1)),
        ({"recency": 1}, (30, 2.5)),
        ({"examples": False, "recency": 0.5}, (1, 0.5)),
        ({"entropy": True}, (15, 2.5)),
        ({"examples": False, "recency": 0.5, "entropy": True}, (0.5, 0.125)),
    ],
)
def test_weightings_are_factors_of_an_updates_weight(
    garden: Path, weighting: dict[str, Any], weights: tuple[float, float]
) -> None:
    spec = StrategySpec(name="fedavg", weighting=Weighting(**weighting))
    one = Fold(garden / "now", Files(garden), 0.0, weight_of(spec))
    told = [accepted("prompt", 0, 30), accepted("late", 1, 10, 3)]
    entropies = zip(told, (0.5, 0.25), strict=True)
    one.fold([one.model_copy(update={"metrics": {"label-entropy": h}}) for one, h in entropies])
    now, then, prompt, late = (
        {name: array.astype(np.float64) for name, array in model(seed).items()} for seed in range(4)
    )
    for name, array in one.accumulator.mean().items():
        values = [prompt[name], now[name] + late[name] - then[name]]
        wanted = np.average(values, axis=0, weights=weights)
        np.testing.assert_allclose(array, wanted, rtol=1e-5, atol=1e-5)


def test_where_nothing_weighs_anything_there_is_no_mean(garden: Path) -> None:
    spec = StrategySpec(name="fedavg", weighting=Weighting(entropy=True))
    one = Fold(garden / "now", Files(garden), 0.0, weight_of(spec))
    update = accepted("prompt", 0, 30).model_copy(update={"metrics": {"label-entropy": 0.0}})
    one.fold([update])
    with pytest.raises(NothingWeighs):
        one.accumulator.mean()


def test_a_late_step_that_went_nowhere_leaves_the_base_of_now(garden: Path) -> None:
    stored(garden / "still", model(1))
    mean = folded(garden, [accepted("still", 0, 7, 2)], exponent=0.5)
    for name, array in mean.items():
        np.testing.assert_allclose(array, model(0)[name], rtol=1e-6)
