"""Screening: every nonsense update is refused with its own code."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from flowerbed.aggregator.screening import (
    Limits,
    Refused,
    screen_claims,
    screen_entropy,
    screen_file,
)
from tests.support.models import Model, model, stored


def changed(change: Callable[[Model], None]) -> Model:
    tensors = model(1)
    change(tensors)
    return tensors


def set_value(name: str, value: float) -> Callable[[Model], None]:
    def change(tensors: Model) -> None:
        tensors[name].reshape(-1)[-1] = value

    return change


def drop(tensors: Model) -> None:
    del tensors["layer.bias"]


def add(tensors: Model) -> None:
    tensors["backdoor"] = np.ones(1, np.float32)


def reshape(tensors: Model) -> None:
    tensors["layer.weight"] = np.ascontiguousarray(tensors["layer.weight"].T)


def widen(tensors: Model) -> None:
    tensors["layer.bias"] = tensors["layer.bias"].astype(np.float64)


def mask(tensors: Model) -> None:
    tensors["layer.bias"] = tensors["layer.bias"].astype(np.bool_)


NONSENSE = [
    ("not-finite", "weight holds nan", set_value("layer.weight", math.nan)),
    ("not-finite", "weight holds inf", set_value("layer.weight", math.inf)),
    ("not-finite", "bias holds -inf", set_value("layer.bias", -math.inf)),
    ("not-finite", "scale holds inf", set_value("norm.scale", math.inf)),
    ("not-finite", "scale holds nan", set_value("norm.scale", math.nan)),
    ("not-finite", "weight holds 3e[+]38", set_value("layer.weight", 3e38)),
    ("wrong-names", "layer.bias is missing", drop),
    ("wrong-names", "backdoor is not in the base", add),
    ("wrong-shape", r"layer.weight is \(10, 100\), base \(100, 10\)", reshape),
    ("wrong-dtype", "layer.bias is F64, base F32", widen),
    ("wrong-dtype", "layer.bias has dtype BOOL", mask),
]


@pytest.mark.parametrize(("code", "detail", "change"), NONSENSE)
def test_other_tensors_than_the_bases_are_refused(
    tmp_path: Path, code: str, detail: str, change: Callable[[Model], None]
) -> None:
    base = stored(tmp_path / "base", model(0))
    update = stored(tmp_path / "update", changed(change))
    with pytest.raises(Refused, match=detail) as refused:
        screen_file(update, base, Limits())
    assert refused.value.code == code


def test_what_is_not_safetensors_is_refused(tmp_path: Path) -> None:
    base = stored(tmp_path / "base", model(0))
    (tmp_path / "update").write_bytes(save(model(1))[:-1])
    with pytest.raises(Refused) as refused:
        screen_file(tmp_path / "update", base, Limits())
    assert refused.value.code == "not-safetensors"


def test_the_distance_from_the_base_is_measured(tmp_path: Path) -> None:
    base = stored(tmp_path / "base", {"w": np.zeros(100_000, np.float32)})
    update = stored(tmp_path / "update", {"w": np.full(100_000, 0.5, np.float32)})
    assert screen_file(update, base, Limits()) == pytest.approx(0.5 * math.sqrt(100_000))


def test_an_update_too_far_from_its_base_is_refused(tmp_path: Path) -> None:
    base = stored(tmp_path / "base", {"w": np.zeros(4, np.float32)})
    update = stored(tmp_path / "update", {"w": np.ones(4, np.float32)})
    assert screen_file(update, base, Limits(max_norm=2.0)) == 2.0
    with pytest.raises(Refused, match=r"distance 2 from the base, 1.9 allowed") as refused:
        screen_file(update, base, Limits(max_norm=1.9))
    assert refused.value.code == "norm-exceeded"


@pytest.mark.parametrize("n_examples", [0, -1, 1_000_001, 10_000_000])
def test_a_nonsense_number_of_examples_is_refused(n_examples: int) -> None:
    with pytest.raises(Refused, match=f"{n_examples} examples claimed") as refused:
        screen_claims(n_examples, {}, Limits())
    assert refused.value.code == "bad-num-examples"


@pytest.mark.parametrize("n_examples", [1, 1_000_000])
def test_a_number_of_examples_within_the_bounds_is_taken(n_examples: int) -> None:
    screen_claims(n_examples, {"loss": 0.1}, Limits())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_metric_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(Refused, match="metric loss is") as refused:
        screen_claims(1, {"loss": value}, Limits())
    assert refused.value.code == "bad-metrics"


@pytest.mark.parametrize("told", [{}, {"label-entropy": -0.1}, {"label-entropy": 2.4}])
def test_an_entropy_that_is_missing_or_impossible_is_refused(told: dict[str, float]) -> None:
    with pytest.raises(Refused) as refused:
        screen_entropy(10, told)
    assert refused.value.code == "label-entropy"


def test_as_many_labels_as_examples_are_as_far_as_it_goes() -> None:
    screen_entropy(10, {"label-entropy": math.log(10)})
    screen_entropy(1, {"label-entropy": 0.0})
