"""A training that was cut short goes on from its checkpoint and ends with the very same bytes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, RecordDict
from torch import nn

from flowerbed.flower_apps import hospital, vision
from flowerbed.flower_apps.hospital import checkpoint as hospital_checkpoint
from flowerbed.flower_apps.hospital import task as hospital_task
from flowerbed.flower_apps.vision import checkpoint as vision_checkpoint
from flowerbed.flower_apps.vision import task as vision_task
from tests.unit.flower_apps.messages import ask, bytes_of, write_patients

TASKS: dict[str, Any] = {"hospital": hospital_task, "vision": vision_task}
KEEPERS: dict[str, Any] = {"hospital": hospital_checkpoint, "vision": vision_checkpoint}
LOSSES = {"hospital": "BCEWithLogitsLoss", "vision": "CrossEntropyLoss"}
EPOCHS = 5


class Killed(Exception):
    pass


@pytest.fixture(params=["hospital", "vision"])
def app(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every epoch is kept: a test has no second to wait."""
    name: str = request.param
    monkeypatch.setattr(KEEPERS[name], "SECONDS_BETWEEN", 0.0)
    return name


@pytest.fixture
def data(app: str, tmp_path: Path) -> Path:
    folder = write_patients(tmp_path / "site")
    images = np.random.default_rng(1).integers(0, 256, (7, 28, 28), dtype=np.uint8)
    np.savez(folder / "train.npz", images=images, labels=np.arange(7, dtype=np.uint8))
    return folder


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    folder = tmp_path / "kept"
    folder.mkdir()
    return folder


@pytest.fixture
def train(app: str, data: Path) -> Callable[..., RecordDict]:
    start = TASKS[app].initial_arrays({"seed": 7})

    def run(kept: Path | None = None, arrays: ArrayRecord = start, **config: Any) -> RecordDict:
        offered = {} if kept is None else {"checkpoint-dir": str(kept)}
        chosen = {"local-epochs": EPOCHS, "proximal-mu": 0.1, **config}
        return ask(app, "train", arrays, data, chosen, **offered)

    return run


@pytest.fixture
def dies_in(app: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Have the training end in the middle of its n-th epoch (two batches an epoch)."""

    def die(epoch: int) -> None:
        kind: type[nn.Module] = getattr(nn, LOSSES[app])
        forward, calls = kind.forward, 0

        def count(self: nn.Module, *args: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 2 * epoch:
                monkeypatch.setattr(kind, "forward", forward)
                raise Killed
            return forward(self, *args)

        monkeypatch.setattr(kind, "forward", count)

    return die


def same(one: RecordDict, other: RecordDict) -> bool:
    return (
        bytes_of(one.array_records["arrays"]) == bytes_of(other.array_records["arrays"])
        and one.metric_records["metrics"] == other.metric_records["metrics"]
    )


@pytest.mark.parametrize("epoch", [2, EPOCHS])
def test_training_cut_short_goes_on_to_the_same_bytes(
    epoch: int, train: Callable[..., RecordDict], kept: Path, dies_in: Callable[[int], None]
) -> None:
    undisturbed = train()
    dies_in(epoch)
    with pytest.raises(Killed):
        train(kept)
    assert [file.name for file in kept.iterdir()] == [f"epoch-{epoch - 1:09d}.pt"]
    dies_in(EPOCHS - epoch + 2)  # an epoch more than is left: it is never reached
    assert same(train(kept), undisturbed)
    assert same(train(kept), undisturbed), "and once more, from the end"


def test_checkpoint_of_another_training_or_a_damaged_one_is_left_alone(
    train: Callable[..., RecordDict], kept: Path
) -> None:
    train(kept)
    assert same(train(kept, seed=5), train(seed=5))
    for file in kept.iterdir():
        file.write_bytes(file.read_bytes()[:100])
    assert same(train(kept), train())


def test_training_goes_on_where_nothing_can_be_kept(
    train: Callable[..., RecordDict], kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for module in KEEPERS.values():
        monkeypatch.setattr(module.os, "fsync", full)
    with pytest.warns(UserWarning, match="is not kept: No space left on device"):
        interrupted = train(kept)
    assert same(interrupted, train())
    assert list(kept.iterdir()) == []


def test_short_training_keeps_nothing(tmp_path: Path, kept: Path) -> None:
    folder = write_patients(tmp_path / "site")
    start = hospital_task.initial_arrays({"seed": 7})
    offered = {"checkpoint-dir": str(kept)}
    ask("hospital", "train", start, folder, None, **offered)
    assert list(kept.iterdir()) == []


def test_each_app_brings_the_same_checkpoints_along() -> None:
    """An app is one folder, and its hash covers all that decides its bytes."""
    files = [Path(str(package.__file__)).parent for package in (hospital, vision)]
    one, other = (folder / "checkpoint.py" for folder in files)
    assert one.read_text() == other.read_text()
