"""What always holds of robust strategies, whatever some of the updates are."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from flowerbed.aggregator.robust import mean_around_median, mean_between
from tests.support.models import Model
from tests.support.robust import NAMES, RULES, combine

N, SIZE = 11, 6
BY_ELEMENT = ("fedmedian", "fedtrimmedavg")

Values = st.sampled_from(
    [0.0, -0.0, 1.0, 1.0 + 2**-23, -1.0, 2.0**-140, 2.0**83, -(2.0**83)]
) | st.floats(-(2.0**83), 2.0**83, width=32)
Updates = arrays.arrays(np.float32, (N, SIZE), elements=Values)


def made(
    name: str, params: dict[str, Any], values: Any, half: bool = False
) -> tuple[Model, str, tuple[int, ...] | None]:
    kind = np.float16 if half else np.float32
    with np.errstate(over="ignore"), tempfile.TemporaryDirectory() as folder:
        updates = [{"w": np.clip(row, -6e4, 6e4).astype(kind) if half else row} for row in values]
        return combine(Path(folder), name, params, {"w": np.zeros(SIZE, kind)}, updates)


@pytest.mark.parametrize(("name", "params"), RULES, ids=NAMES)
@settings(max_examples=25, deadline=None)
@given(values=Updates)
def test_the_same_updates_give_the_same_bytes(
    name: str, params: dict[str, Any], values: Any
) -> None:
    assert made(name, params, values)[1:] == made(name, params, values)[1:]


@pytest.mark.parametrize("params", [{}, {"beta": 0.4}])
@pytest.mark.parametrize("name", BY_ELEMENT)
@settings(max_examples=25, deadline=None)
@given(values=Updates, order=st.permutations(range(N)), half=st.booleans())
def test_element_by_element_the_order_of_updates_changes_no_byte(
    name: str, params: dict[str, Any], values: Any, order: list[int], half: bool
) -> None:
    params = params if name == "fedtrimmedavg" else {}
    _, sha256, _ = made(name, params, values, half)
    assert made(name, params, values[order], half)[1] == sha256


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), order=st.permutations(range(N)))
def test_krum_chooses_the_same_updates_in_whatever_order_they_are(
    seed: int, order: list[int]
) -> None:
    """Where no two are equally close, as with trained weights."""
    values = np.random.default_rng(seed).standard_normal((N, SIZE)).astype(np.float32)
    params = {"num_malicious_nodes": 2, "num_nodes_to_select": 5}
    _, _, first = made("multikrum", params, values)
    _, _, second = made("multikrum", params, values[order])
    assert {order[place] for place in second or ()} == set(first or ())


AGAINST_TWO = [rule for rule in RULES if rule != ("bulyan", {})]
"""Bulyan against nobody is the mean."""


@pytest.mark.parametrize(("name", "params"), AGAINST_TWO)
@settings(max_examples=40, deadline=None)
@given(values=Updates, honest=st.floats(-100, 100, width=32), data=st.data())
def test_two_of_eleven_cannot_move_what_the_others_agree_on(
    name: str, params: dict[str, Any], values: Any, honest: float, data: st.DataObject
) -> None:
    bad = data.draw(st.sets(st.integers(0, N - 1), max_size=2))
    for place in set(range(N)) - bad:
        values[place] = honest
    after = made(name, params, values)[0]["w"]
    np.testing.assert_allclose(after, np.full(SIZE, honest, np.float32), rtol=1e-6)


@settings(max_examples=100, deadline=None)
@given(
    values=arrays.arrays(np.float64, (4, 9), elements=st.floats(-1e6, 1e6)), count=st.integers(1, 9)
)
def test_the_values_around_a_median_are_the_nearest_ones(values: Any, count: int) -> None:
    values.sort(axis=1)
    median = mean_between(values, 4)
    far = np.sort(np.abs(values - median[:, None]), axis=1)[:, :count]
    # Their sum may differ where two are as near: not how far they are from the median.
    mean = mean_around_median(values, count)
    assert np.all(np.abs(mean - median) <= far.max(axis=1) + 1e-9)
    whole = mean_around_median(values, 9)
    np.testing.assert_allclose(whole, values.mean(axis=1), atol=1e-8)
