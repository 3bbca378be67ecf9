"""Robust strategies: what Flower's own make of the same updates, and plain references."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.serverapp.strategy.multikrum import compute_distances
from safetensors.numpy import save_file

from flowerbed.aggregator.comparing import squared_distances
from flowerbed.aggregator.fold import Source
from flowerbed.aggregator.robust import (
    LateNotCompared,
    Together,
    TooFewUpdates,
    krum_scores,
    lowest,
    mean_around_median,
    rule_of,
)
from flowerbed.aggregator.tensors import TensorFile
from flowerbed.contracts.strategy import Strategy as StrategySpec
from flowerbed.contracts.update import UpdateAccepted
from tests.support import flower, robust
from tests.support.byzfl import aggregators as byzfl
from tests.support.models import Model, model, stored
from tests.support.robust import NAMES, RULES, combine

N = 11
WEIGHTS = tuple(100 + 37 * place for place in range(N))


def floats(seed: int, size: float = 1.0) -> Model:
    dice = np.random.default_rng(seed)
    return {
        "layer.weight": (size * dice.standard_normal((40, 10))).astype(np.float32),
        "layer.bias": (size * dice.standard_normal(10)).astype(np.float32),
    }


def round_of(n: int = N, size: float = 0.1) -> tuple[Model, list[Model]]:
    """A base and updates, of which two went far away."""
    base = floats(0)
    updates = []
    for place in range(n):
        step = floats(1 + place, size * (30 if place in (2, 5) else 1))
        updates.append({name: base[name] + step[name] for name in base})
    return base, updates


def rows(updates: list[Model]) -> robust.Matrix:
    flat = [np.concatenate([one[name].ravel() for name in sorted(one)]) for one in updates]
    return np.asarray(flat, np.float64)


@pytest.mark.parametrize(("name", "params"), RULES, ids=NAMES)
def test_it_gives_what_flowers_own_gives(tmp_path: Path, name: str, params: dict[str, Any]) -> None:
    """Steps are a tenth of the weights here: there Flower's distances are good enough."""
    base, updates = round_of()
    theirs = flower.aggregate(flower.STRATEGIES[name](**params), base, updates, WEIGHTS)
    ours, _, _ = combine(tmp_path, name, params, base, updates, WEIGHTS)
    for key, array in ours.items():
        np.testing.assert_allclose(array, theirs[key], rtol=2e-6, atol=2e-7)


REFERENCES: dict[str, Any] = {
    "fedmedian": lambda them, _: np.median(them, axis=0),
    "fedtrimmedavg": lambda them, params: np.sort(them, axis=0)[
        (cut := int(params.get("beta", 0.2) * N)) : N - cut
    ].mean(axis=0),
    "krum": lambda them, params: them[
        sorted(robust.chosen_by_krum(them, params.get("num_malicious_nodes", 0), 1))
    ].mean(axis=0),
    "multikrum": lambda them, params: np.average(
        them[(chosen := sorted(robust.chosen_by_krum(them, 2, params["num_nodes_to_select"])))],
        axis=0,
        weights=np.asarray(WEIGHTS)[chosen],
    ),
    "bulyan": lambda them, params: robust.bulyan(them, params.get("num_malicious_nodes", 0)),
}


@pytest.mark.parametrize("size", [0.1, 1e-3, 1e-5])
@pytest.mark.parametrize(("name", "params"), RULES, ids=NAMES)
def test_it_gives_what_the_definition_in_float64_gives(
    tmp_path: Path, name: str, params: dict[str, Any], size: float
) -> None:
    base, updates = round_of(size=size)
    ours, _, _ = combine(tmp_path, name, params, base, updates, WEIGHTS)
    wanted = REFERENCES[name](rows(updates), params)
    np.testing.assert_allclose(rows([ours])[0], wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("n", [N, N + 1])
@pytest.mark.parametrize(
    ("name", "params", "theirs"),
    [
        ("fedmedian", {}, byzfl.Median()),
        ("fedtrimmedavg", {"beta": 0.2}, byzfl.TrMean(f=2)),
        ("fedtrimmedavg", {"beta": 0}, byzfl.TrMean(f=0)),
    ],
)
def test_element_by_element_it_gives_what_byzfl_gives(
    tmp_path: Path, name: str, params: dict[str, Any], theirs: Any, n: int
) -> None:
    base, updates = round_of(n, 1e-3)
    ours, _, _ = combine(tmp_path, name, params, base, updates)
    np.testing.assert_allclose(rows([ours])[0], theirs(rows(updates)), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("size", [0.1, 1e-3])
@pytest.mark.parametrize("n_malicious", [0, 2, 4])
def test_closest_are_those_of_byzfl_which_counts_one_neighbour_more(
    tmp_path: Path, n_malicious: int, size: float
) -> None:
    """n - f - 1 of them; Blanchard et al. 2017 and Flower sum over n - f - 2."""
    base, updates = round_of(size=size)
    scores = krum_scores(distances(tmp_path, base, updates), N - n_malicious - 1)
    them = rows(updates)
    (best,) = lowest(scores, 1)
    np.testing.assert_array_equal(them[best], byzfl.Krum(f=n_malicious)(them))
    chosen = list(lowest(scores, N - n_malicious))
    wanted = byzfl.MultiKrum(f=n_malicious)(them)
    np.testing.assert_allclose(them[chosen].mean(axis=0), wanted, rtol=1e-12)


def test_krum_gives_the_chosen_update_to_the_last_bit(tmp_path: Path) -> None:
    base = model(0)
    updates = [model(seed) for seed in range(1, 6)]
    ours, _, chosen = combine(tmp_path, "krum", {}, base, updates, [1_000_003] * 5)
    assert chosen is not None and len(chosen) == 1
    np.testing.assert_equal(ours, updates[chosen[0]])


def test_every_type_of_tensor_has_its_median(tmp_path: Path) -> None:
    updates = [model(seed) for seed in range(1, 6)]
    ours, _, _ = combine(tmp_path, "fedmedian", {}, model(0), updates)
    for name, array in ours.items():
        wanted = np.median(np.stack([one[name] for one in updates]).astype(np.float64), axis=0)
        np.testing.assert_array_equal(array, wanted.astype(array.dtype))


# --- distances ------------------------------------------------------------------------------


def distances(folder: Path, base: Model, updates: list[Model]) -> robust.Matrix:
    files = [TensorFile(stored(folder / f"d{place}", one)) for place, one in enumerate(updates)]
    with TensorFile(stored(folder / "base", base)) as first:
        return squared_distances(files, first)


@pytest.mark.parametrize("size", [0.1, 1e-3, 1e-4])
def test_distances_are_right_to_1e_6_however_small_the_updates(tmp_path: Path, size: float) -> None:
    base, updates = round_of(size=size)
    found, wanted = distances(tmp_path, base, updates), robust.squared_distances(rows(updates))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_flowers_distances_are_noise_where_updates_are_a_thousandth_of_the_weights() -> None:
    """So near convergence its choice is not what is compared with."""
    _, updates = round_of(size=1e-3)
    found = compute_distances([flower.arrays(one) for one in updates])
    wanted = robust.squared_distances(rows(updates))
    others = ~np.eye(N, dtype=bool)
    assert np.max(np.abs(found - wanted)[others] / wanted[others]) > 0.01


def test_one_far_away_does_not_take_the_digits_of_the_others_distances(tmp_path: Path) -> None:
    base, updates = round_of(size=1e-3)
    updates[4] = {name: np.full_like(array, 1e24) for name, array in base.items()}
    found, wanted = distances(tmp_path, base, updates), robust.squared_distances(rows(updates))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize("width", [64, 1000, 1 << 20])
def test_the_choice_does_not_depend_on_the_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    base, updates = round_of(size=1e-3)
    monkeypatch.setattr("flowerbed.aggregator.comparing._width", lambda n: width)
    params = {"num_malicious_nodes": 2, "num_nodes_to_select": 5}
    _, _, chosen = combine(tmp_path, "multikrum", params, base, updates)
    assert set(chosen or ()) == robust.chosen_by_krum(rows(updates), 2, 5)


def test_scores_that_differ_by_rounding_are_equal_and_the_first_is_chosen() -> None:
    scores = [3.0, 1.0 + 2e-16, 1.0, 1.0 - 1e-16, 2.0]
    assert lowest(scores, 1) == (1,)
    assert lowest(scores, 3) == (1, 2, 3)
    assert lowest([1e50, 1e-30, 1e-31], 2) == (1, 2)
    assert krum_scores(np.array([[0, 1, 4], [1, 0, 9], [4, 9, 0.0]]), 1) == [1, 1, 4]


def test_of_two_values_as_near_to_the_median_the_lower_is_taken() -> None:
    values = np.array([[-5.0, -1.0, 0.0, 1.0, 9.0]])
    assert mean_around_median(values, 1)[0] == 0.0
    assert mean_around_median(values, 2)[0] == -0.5
    assert mean_around_median(values, 3)[0] == 0.0
    assert mean_around_median(values, 5)[0] == pytest.approx(0.8)


# --- a round's updates ------------------------------------------------------------------------


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def fetch(self, update: UpdateAccepted) -> Path:
        return self.path / update.client_id

    def fetch_base(self, base: object) -> Path:
        raise AssertionError("unreachable")

    def drop(self, update: UpdateAccepted) -> None:
        raise AssertionError("unreachable")


def accepted(place: int, **more: Any) -> UpdateAccepted:
    return UpdateAccepted(
        **{
            "federation_id": "fed-1", "round_number": 5, "attempt": 1, "exchange": "train",
            "client_id": f"u{place}", "work_id": f"u{place}", "place": place, "artifact": None,
            "n_examples": 10, **more,
        }
    )  # fmt: skip


def together(folder: Path, params: dict[str, Any]) -> Together:
    spec = StrategySpec(name="krum", params=params)
    rule, source = rule_of(spec), Folder(folder)
    assert rule is not None
    typed: Source = source
    return Together(spec, rule, typed)


def test_too_few_updates_for_the_rule_are_refused(tmp_path: Path) -> None:
    one = together(tmp_path, {"num_malicious_nodes": 1})
    one.extend([accepted(place) for place in range(4)])
    with (
        TensorFile(stored(tmp_path / "base", model(0))) as base,
        pytest.raises(TooFewUpdates, match="krum needs 5 updates, 4 are accepted"),
    ):
        one.write(tmp_path / "out", base)


def test_an_update_of_another_base_is_refused(tmp_path: Path) -> None:
    one = together(tmp_path, {})
    one.extend([accepted(0), accepted(1), accepted(2, staleness=2)])
    with (
        TensorFile(stored(tmp_path / "base", model(0))) as base,
        pytest.raises(LateNotCompared, match="one base: u2's is 2 rounds late"),
    ):
        one.write(tmp_path / "out", base)


def test_it_says_the_places_of_the_chosen(tmp_path: Path) -> None:
    base, updates = round_of(5)
    for place, update in enumerate(updates):
        stored(tmp_path / f"u{place}", update)
    one = together(tmp_path, {})
    one.extend([accepted(0), accepted(1)])
    one.extend([accepted(place) for place in (0, 1, 3, 4)])
    assert (one.places, one.selected) == ((0, 1, 3, 4), None)
    with TensorFile(stored(tmp_path / "base", base)) as first:
        one.write(tmp_path / "out", first)
    assert one.selected is not None and set(one.selected) < {0, 1, 3, 4}


_MEASURE = """
import resource, sys
from contextlib import ExitStack
from pathlib import Path
from flowerbed.aggregator.fold import InTime
from flowerbed.aggregator.robust import rule_of
from flowerbed.aggregator.tensors import TensorFile
from flowerbed.contracts.strategy import Strategy

folder, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rule = rule_of(Strategy(name=name))
with ExitStack() as files:
    opened = [files.enter_context(TensorFile(folder / str(n % 4))) for n in range(count)]
    rule.write(folder / "out", opened[0], [InTime(one, 1) for one in opened])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
assert "torch" not in sys.modules and "flwr" not in sys.modules
"""


@pytest.mark.parametrize("name", ["fedtrimmedavg", "bulyan"])
def test_peak_memory_is_flat_whatever_the_number_of_updates(tmp_path: Path, name: str) -> None:
    weights = np.random.default_rng(0).standard_normal(16 << 18).astype(np.float32)
    for place in range(4):
        save_file({"w": weights + np.float32(place)}, tmp_path / str(place))

    def peak(count: int) -> float:
        command = [sys.executable, "-c", _MEASURE, str(tmp_path), name, str(count)]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert max(peak(6), peak(24)) < 100  # 24 updates are 384 MiB
