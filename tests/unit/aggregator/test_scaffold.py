"""SCAFFOLD at the server: its control variate and its model are what the paper's formulas give."""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from flowerbed.aggregator.fold import Accumulator, InTime
from flowerbed.aggregator.optimizers import Moments
from flowerbed.aggregator.scaffold import CONTROL_PREFIX, Scaffold, with_control
from flowerbed.aggregator.tensors import TensorFile
from flowerbed.flower_apps import messages
from tests.support.models import model, stored


def test_the_names_are_those_of_the_messages() -> None:
    assert CONTROL_PREFIX == messages.CONTROL_PREFIX


def test_a_base_is_given_a_control_variate_of_zero_once(tmp_path: Path) -> None:
    stored(tmp_path / "base", model(1))
    path, sha256 = with_control(tmp_path / "base", tmp_path / "whole")
    whole = load_file(path)
    floats = {name for name, array in model(1).items() if array.dtype.kind == "f"}
    assert whole.keys() == model(1).keys() | {f"scaffold/{name}" for name in floats}
    for name in floats:
        np.testing.assert_array_equal(whole[name], model(1)[name])
        assert whole[f"scaffold/{name}"].shape == model(1)[name].shape
        assert not whole[f"scaffold/{name}"].any()
    assert with_control(path, tmp_path / "again")[1] == sha256


def test_model_and_control_are_the_papers(tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    names = ("w", "scaffold/w")
    base, *updates = [
        {name: draw.standard_normal((7, 3)).astype(np.float32) for name in names} for _ in range(4)
    ]
    paths = [tmp_path / str(place) for place in range(4)]
    for path, tensors in zip(paths, [base, *updates], strict=True):
        save_file(tensors, path)
    rate, n_clients = 0.5, 6
    with TensorFile(paths[0]) as file:
        sums = Accumulator(file.tensors)
        sums.add(*(InTime(TensorFile(path), 1.0) for path in paths[1:]))
        found, kept = Scaffold(rate, 3 / n_clients).finish(
            sums.mean(), file, Moments(None, tmp_path / "after")
        )
    x, c = (base[name].astype(np.float64) for name in names)
    x += rate / 3 * sum(one["w"].astype(np.float64) - base["w"] for one in updates)
    c += sum(one["scaffold/w"].astype(np.float64) for one in updates) / n_clients
    np.testing.assert_allclose(found["w"], x, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["scaffold/w"], c, rtol=1e-5, atol=1e-6)
    assert kept is None
