"""XGBoost's models as updates: put together as Flower does it, and refused where they are none."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost as xgb
from flwr.serverapp.strategy.strategy_utils import aggregate_bagging
from safetensors.numpy import load_file, save_file

from flowerbed.aggregator.fold import InTime
from flowerbed.aggregator.screening import Refused, screen_trees
from flowerbed.aggregator.tensors import TensorFile
from flowerbed.aggregator.trees import Bagging, Cyclic, NotTrees, read_model
from tests.support.trees import WIDTH, data, trained


def put(path: Path, content: bytes) -> Path:
    save_file({"0": np.frombuffer(content, np.uint8)}, path)
    return path


def bagged(folder: Path, base: bytes, updates: list[bytes], rule: Any = None) -> bytes:
    paths = [put(folder / f"update-{place}", one) for place, one in enumerate(updates)]
    for path in paths:
        screen_trees(path, put(folder / "base", base))
    with TensorFile(put(folder / "base", base)) as file:
        opened = [InTime(TensorFile(path), 1) for path in paths]
        (rule or Bagging()).write(folder / "out", file, opened)
        for one in opened:
            one.update.__exit__(None, None, None)
    return load_file(folder / "out")["0"].tobytes()


def test_bagging_gives_the_bytes_of_flowers_own(tmp_path: Path) -> None:
    base, theirs = b"", b""
    for number in range(3):
        updates = [trained(base, 10 * number + place) for place in range(3)]
        for update in updates:
            theirs = aggregate_bagging(theirs, update)
        base = bagged(tmp_path, base, updates)
        assert base == theirs
    booster = xgb.Booster()
    booster.load_model(bytearray(base))
    assert booster.num_boosted_rounds() == 9
    rows = data(99)
    assert np.mean((booster.predict(rows) > 0.5) == (rows.get_label() > 0.5)) > 0.7


def test_of_several_boosting_rounds_all_trees_count(tmp_path: Path) -> None:
    first = trained(b"", 1, rounds=2)
    merged = json.loads(bagged(tmp_path, first, [trained(first, 2, rounds=3)]))
    model = merged["learner"]["gradient_booster"]["model"]
    assert [tree["id"] for tree in model["trees"]] == [0, 1, 2, 3, 4]
    assert model["iteration_indptr"] == [0, 1, 2, 3, 4, 5]
    assert json.loads(aggregate_bagging(first, trained(first, 2, rounds=3))) != merged


def test_the_first_model_of_all_stays_as_it_is(tmp_path: Path) -> None:
    model = trained(b"", 1)
    assert bagged(tmp_path, b"", [model]) == model


def test_cyclic_takes_the_model_of_the_one_that_was_asked(tmp_path: Path) -> None:
    model = trained(b"", 1, rounds=4)
    assert bagged(tmp_path, trained(b"", 2), [model], Cyclic()) == model


def changed(change: Callable[[dict[str, Any]], Any]) -> bytes:
    document = json.loads(trained(b"", 1))
    change(document["learner"]["gradient_booster"]["model"])
    return json.dumps(document).encode()


def loop(model: dict[str, Any]) -> None:
    model["trees"][0]["left_children"][1] = 0
    model["trees"][0]["right_children"][1] = 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the update has no tree"),
        (b"no json", "not an XGBoost model in JSON, Booster.save_raw('json'): Expecting value"),
        (bytes(range(256)), "not an XGBoost model in JSON"),
        (b"[" * 100_000, "RecursionError"),
        (b"{}", "KeyError"),
        (b"[1]", "TypeError"),
        (changed(lambda model: model["trees"].pop()), "0 trees, and its counts say otherwise"),
        (changed(lambda model: model.update(iteration_indptr=[0, 7])), "its boosting rounds"),
        (changed(loop), "node 1 of a tree leads nowhere"),
        (
            changed(lambda model: model["trees"][0].update(split_conditions=[float("nan")])),
            "it holds NaN",
        ),
        (
            changed(lambda model: model["trees"][0]["split_indices"].__setitem__(0, WIDTH)),
            "node 0 of a tree leads nowhere",
        ),
        (changed(lambda model: model["trees"][0]["left_children"].pop()), "not counted right"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(Refused) as refused:
        screen_trees(put(tmp_path / "update", content), put(tmp_path / "base", b""))
    assert refused.value.code == "not-trees" and words in refused.value.detail


def test_a_model_of_another_kind_than_the_bases_is_refused(tmp_path: Path) -> None:
    update = put(tmp_path / "update", trained(b"", 1, objective="reg:squarederror"))
    with pytest.raises(Refused, match="the base for"):
        screen_trees(update, put(tmp_path / "base", trained(b"", 2)))


def test_anything_but_one_tensor_of_bytes_is_refused(tmp_path: Path) -> None:
    for name, array in (("0", np.zeros(3, np.float32)), ("1", np.zeros(3, np.uint8))):
        save_file({name: array}, tmp_path / "update")
        with TensorFile(tmp_path / "update") as file, pytest.raises(NotTrees, match="one tensor 0"):
            read_model(file)
