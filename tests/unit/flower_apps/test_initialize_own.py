"""What an author has already gives the base checkpoint: a Net, a function, a list of arrays."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from flowerbed.contracts.bundle import unpack
from tests.support.apps import bundle

TASK = """
import numpy as np
import torch
from flwr.app import ArrayRecord


class Net(torch.nn.Linear):
    def __init__(self):
        super().__init__(2, 1)
        self.register_buffer("seen", torch.tensor(3))


def from_config(config):
    return {"w": np.full(2, config["width"], np.float32)}


def record():
    return ArrayRecord(Net().state_dict())


def text():
    return {"w": np.array(["a"])}


layers = [np.zeros(2), np.ones(1)]
nothing = 5
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "app"
    unpack(bundle({"drift/task.py": TASK}), folder)
    return folder


def initialize(folder: Path, model: str, out: Path, seed: int = 7) -> str:
    """What it says on standard error; nothing if it went well."""
    done = subprocess.run(
        [
            sys.executable, "-m", "flowerbed.flower_apps.initialize_own", "--folder", str(folder),
            "--model", model, "--seed", str(seed), "--out", str(out), "--config", '{"width": 4}',
        ],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode == 0) == (not done.stderr.strip()), done.stderr
    return done.stderr.strip()


def test_a_torch_model_is_seeded_by_the_spec(folder: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        assert initialize(folder, "drift.task:Net", tmp_path / name, seed) == ""
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()
    arrays = load_file(tmp_path / "a")
    assert {name: value.shape for name, value in arrays.items()} == {
        "weight": (1, 2), "bias": (1,), "seen": (),
    }  # fmt: skip


def test_functions_records_and_lists_will_do(folder: Path, tmp_path: Path) -> None:
    assert initialize(folder, "drift.task:from_config", tmp_path / "config") == ""
    assert np.array_equal(load_file(tmp_path / "config")["w"], np.full(2, 4, np.float32))
    assert initialize(folder, "drift.task:record", tmp_path / "record") == ""
    assert set(load_file(tmp_path / "record")) == {"weight", "bias", "seen"}
    assert initialize(folder, "drift.task:layers", tmp_path / "layers") == ""
    assert set(load_file(tmp_path / "layers")) == {"0", "1"}


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("drift.task:nothing", "gave int: no model"),
        ("drift.task:text", "is no array of numbers"),
        ("drift.task:missing", "missing"),
        ("drift.nowhere:Net", "drift.nowhere"),
    ],
)
def test_what_is_no_model_ends_with_a_word_about_it(
    folder: Path, tmp_path: Path, model: str, words: str
) -> None:
    assert words in initialize(folder, model, tmp_path / "out").splitlines()[-1]
