"""Server optimizers: what Flower's own make of the same rounds, and the papers' formulas."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from flowerbed.aggregator.checkpoints import MeanNotFinite, write_checkpoint
from flowerbed.aggregator.fold import Accumulator, InTime
from flowerbed.aggregator.optimizers import Moments
from flowerbed.aggregator.strategies import strategy_of
from flowerbed.aggregator.tensors import TensorFile
from flowerbed.contracts.strategy import Strategy as StrategySpec
from tests.support import flower
from tests.support.models import Model, model, stored

OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("fedavgm", {}),
    ("fedavgm", {"server_learning_rate": 0.7}),
    ("fedavgm", {"server_learning_rate": 0.7, "server_momentum": 0.9}),
    ("fedadagrad", {}),
    ("fedadagrad", {"eta": 0.03, "tau": 0.1}),
    ("fedadam", {}),
    ("fedadam", {"eta": 0.03, "beta_1": 0.5, "beta_2": 0.8, "tau": 0.01}),
    ("fedadam", {"beta_1": 0.0, "beta_2": 0.0}),
    ("fedyogi", {}),
    ("fedyogi", {"eta": 0.03, "beta_1": 0.5, "beta_2": 0.8, "tau": 0.01}),
]
WEIGHTS = (303, 261, 46)
ROUNDS = 5


def floats(seed: int, size: float = 1.0) -> Model:
    dice = np.random.default_rng(seed)
    return {
        "layer.weight": (size * dice.standard_normal((40, 10))).astype(np.float32),
        "layer.bias": (size * dice.standard_normal(10)).astype(np.float32),
    }


def updates_of(base: Model, number: int) -> list[Model]:
    moved = [floats(100 * number + place, 0.02) for place in range(len(WEIGHTS))]
    return [{name: base[name] + step[name] for name in base} for step in moved]


class Server:
    """Round after round in one folder, as the bridge goes about it."""

    def __init__(self, folder: Path, name: str, params: dict[str, Any], base: Model) -> None:
        self.spec = StrategySpec(name=name, params=params)
        self.folder = folder
        self.path = stored(folder / "base-0", base)
        self.number = 0
        self.kept: Path | None = None
        self.digests: list[tuple[str, str | None]] = []

    def fold(self, updates: list[Model], weights: tuple[int, ...] = WEIGHTS) -> Model:
        self.number += 1
        out, after = (self.folder / f"{kind}-{self.number}" for kind in ("base", "moments"))
        with TensorFile(self.path) as base:
            sums = Accumulator(base.tensors)
            for place, (update, weight) in enumerate(zip(updates, weights, strict=True)):
                with TensorFile(stored(self.folder / f"update-{place}", update)) as file:
                    sums.add(InTime(file, weight))
            strategy = strategy_of(self.spec, self.number)
            tensors, kept = strategy.finish(sums.mean(), base, Moments(self.kept, after))
            sha256, _ = write_checkpoint(out, base.tensors, tensors)
        self.digests.append((sha256, kept))
        self.path, self.kept = out, after if kept else None
        return load_file(out)


@pytest.mark.parametrize(("name", "params"), OPTIMIZERS)
def test_round_after_round_it_gives_what_flowers_own_gives(
    tmp_path: Path, name: str, params: dict[str, Any]
) -> None:
    base = floats(0)
    theirs = flower.STRATEGIES[name](**params)
    ours = Server(tmp_path, name, params, base)
    for number in range(1, ROUNDS + 1):
        updates = updates_of(base, number)
        wanted = flower.aggregate(theirs, base, updates, WEIGHTS, number)
        base = ours.fold(updates)
        for key, array in base.items():
            # Flower's step is taken in float32, and divided by as little as tau.
            np.testing.assert_allclose(array, wanted[key], rtol=1e-6, atol=3e-5)


def algorithm_2(
    name: str, base: Model, steps: list[Model], eta: float, beta: tuple[float, float], tau: float
) -> Model:
    """Reddi et al. 2021, algorithm 2 in float64; FedAdam's rate as Flower corrects it."""
    x = {key: array.astype(np.float64) for key, array in base.items()}
    m = {key: np.zeros_like(array) for key, array in x.items()}
    v = {key: np.zeros_like(array) for key, array in x.items()}
    for t, step in enumerate(steps, start=1):
        for key in x:
            delta = step[key].astype(np.float64)
            m[key] = beta[0] * m[key] + (1 - beta[0]) * delta
            sign = np.sign(v[key] - delta**2)
            v[key] = {
                "fedadagrad": v[key] + delta**2,
                "fedyogi": v[key] - (1 - beta[1]) * delta**2 * sign,
                "fedadam": beta[1] * v[key] + (1 - beta[1]) * delta**2,
            }[name]
            rate = eta
            if name == "fedadam":
                rate *= np.sqrt(1 - beta[1] ** (t + 1)) / (1 - beta[0] ** (t + 1))
            x[key] += rate * m[key] / (np.sqrt(v[key]) + tau)
    return x


@pytest.mark.parametrize("name", ["fedadagrad", "fedadam", "fedyogi"])
def test_it_is_algorithm_2_of_reddi_et_al_up_to_the_rounding_of_float32(
    tmp_path: Path, name: str
) -> None:
    beta = (0.0, 0.0) if name == "fedadagrad" else (0.9, 0.99)
    params = {} if name == "fedadagrad" else {"beta_1": 0.9, "beta_2": 0.99}
    # Steps of whole 1/1024 on a base of 0, so that delta is exact in the first rounds.
    first = {"w": np.zeros(64, np.float32)}
    steps = [
        {"w": np.round(np.random.default_rng(n).normal(0, 60, 64)).astype(np.float32) / 1024}
        for n in range(3)
    ]
    server = Server(tmp_path, name, {"eta": 0.05, "tau": 1e-2, **params}, first)
    base = first
    for step in steps:
        base = server.fold([{"w": base["w"] + step["w"]}], (1,))
    wanted = algorithm_2(name, first, steps, 0.05, beta, 1e-2)
    np.testing.assert_allclose(base["w"], wanted["w"], rtol=1e-5, atol=1e-6)


def test_momentum_is_that_of_hsu_et_al(tmp_path: Path) -> None:
    server = Server(tmp_path, "fedavgm", {"server_momentum": 0.5}, {"w": np.zeros(1, np.float32)})
    moved = [
        float(server.fold([{"w": np.array([2 + at], np.float32)}], (1,))["w"][0]) for at in (0, 2)
    ]
    assert moved == [2.0, 2.0 + (0.5 * 2 + 2)]


def test_without_momentum_and_at_rate_1_it_is_fedavg_and_keeps_nothing(tmp_path: Path) -> None:
    plain, idle = (Server(tmp_path, name, {}, floats(0)) for name in ("fedavg", "fedavgm"))
    updates = updates_of(floats(0), 1)
    np.testing.assert_equal(plain.fold(updates), idle.fold(updates))
    assert plain.digests == idle.digests and idle.kept is None


@pytest.mark.parametrize(("name", "params"), OPTIMIZERS)
def test_the_same_rounds_give_the_same_bytes_in_blocks_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, params: dict[str, Any]
) -> None:
    digests = []
    for turn, block in enumerate((262_144, 7, 64)):
        monkeypatch.setattr("flowerbed.aggregator.optimizers.BLOCK", block)
        (tmp_path / str(turn)).mkdir()
        server = Server(tmp_path / str(turn), name, params, model(0))
        for number in range(1, 4):
            server.fold([model(10 * number + place) for place in range(3)])
        digests.append(server.digests)
    assert digests[0] == digests[1] == digests[2]


@pytest.mark.parametrize("name", ["fedadam", "fedavgm"])
def test_halves_are_moved_and_counters_take_the_mean(tmp_path: Path, name: str) -> None:
    params = {"server_momentum": 0.9} if name == "fedavgm" else {}
    server = Server(tmp_path, name, params, model(0))
    after = server.fold([model(1), model(1)], (1, 1))
    assert after["norm.steps"] == model(1)["norm.steps"]
    assert after["norm.scale"].dtype == np.float16
    assert server.kept is not None
    kept = load_file(server.kept)
    assert {key.partition(".")[2] for key in kept} == set(model(0)) - {"norm.steps"}
    assert {array.dtype for array in kept.values()} == {np.dtype(np.float32)}


def test_a_moment_that_overflows_is_refused(tmp_path: Path) -> None:
    server = Server(tmp_path, "fedadam", {}, {"w": np.zeros(2, np.float32)})
    with pytest.raises(MeanNotFinite, match=r"v\.w is not finite"):
        server.fold([{"w": np.full(2, 1e24, np.float32)}], (1,))
