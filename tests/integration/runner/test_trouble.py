"""What goes wrong at a site is said, once and with its reason, and ends with what caused it."""

import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flowerbed.contracts.values import DatasetRef
from flowerbed.runner import agent as agent_module
from flowerbed.runner import bench, clock, lease_work, storage
from flowerbed.runner.dataset import Dataset
from flowerbed.runner.journal import Journal
from flowerbed.runner.state import StateDir
from flowerbed.runner.status import read_status
from tests.integration.runner.conftest import BASE, AgentProcess, AgentThread
from tests.integration.runner.control_plane import ControlPlane, wait_for
from tests.integration.runner.watching import finished_runs, resumptions

Start = Callable[[], AgentThread]
StartProcess = Callable[..., AgentProcess]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_module, "PASSING_PAUSE", 0.1)
    monkeypatch.setattr(lease_work, "TROUBLE_SECONDS", 0.2)
    monkeypatch.setattr(lease_work, "TROUBLE_STEP", 0.05)


def test_dataset_that_is_gone_is_declined_once_and_claimed_when_it_is_back(
    control_plane: ControlPlane, start_agent: Start, folder: Path, enrolled: StateDir
) -> None:
    away = folder.rename(folder.with_name("unmounted"))
    control_plane.offer()
    start_agent()
    wait_for(lambda: control_plane.declines, "the refusal")
    looks = control_plane.polls
    wait_for(lambda: control_plane.polls >= looks + 3, "more looks")
    assert control_plane.declines == [("dataset-gone", "the site's dataset is not where it was")]
    status = read_status(enrolled)
    assert status is not None
    assert status.last_error is not None
    assert status.last_error.code == "dataset-gone"
    assert f"{folder} is not a folder" in status.last_error.message, "the site may know where"
    away.rename(folder)
    wait_for(lambda: control_plane.claims, "the claim")


def test_dataset_that_goes_away_under_a_lease_fails_the_work_and_keeps_the_lease(
    control_plane: ControlPlane,
    reference: DatasetRef,
    start_agent: Start,
    folder: Path,
    enrolled: StateDir,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    control_plane.offer()
    start_agent()
    wait_for(lambda: control_plane.claims, "the claim")
    away = folder.rename(folder.with_name("unmounted"))
    control_plane.orders = [control_plane.order(BASE, dataset_sha256=reference.sha256)]
    wait_for(lambda: control_plane.failures, "the failure")
    assert control_plane.failures[0][1].code == "dataset-gone"
    monkeypatch.setattr(lease_work, "TROUBLE_SECONDS", 30.0)
    control_plane.orders = [control_plane.order(BASE, dataset_sha256=reference.sha256, attempt=2)]
    looked, look = threading.Event(), Dataset.look

    def see(dataset: Dataset) -> None:
        looked.set()
        look(dataset)

    monkeypatch.setattr(Dataset, "look", see)
    assert looked.wait(10), "the next attempt waits for the data"
    away.rename(folder)
    wait_for(lambda: control_plane.reports, "the report")
    assert len(control_plane.failures) == 1, "the attempt was not wasted"
    assert finished_runs(enrolled) == [1]


@pytest.mark.parametrize("wrong", [3600, -3600])
def test_site_whose_clock_is_an_hour_wrong_works_as_every_other(
    wrong: int,
    control_plane: ControlPlane,
    reference: DatasetRef,
    start_process: StartProcess,
    enrolled: StateDir,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    skew = tmp_path / "skew"
    skew.write_text(str(wrong))
    monkeypatch.setenv(clock.OFFSET_FILE_VARIABLE, str(skew))
    control_plane.offer()
    control_plane.orders = [
        control_plane.order(BASE, dataset_sha256=reference.sha256),
        control_plane.order(BASE, dataset_sha256=reference.sha256, round_number=2, exp=1),
    ]
    start_process()
    wait_for(lambda: control_plane.reports and control_plane.failures, "both answers")
    assert control_plane.failures[0][1].code == "expired", "it is not that time is not looked at"
    skew.write_text(str(-wrong))
    control_plane.orders = [
        control_plane.order(BASE, dataset_sha256=reference.sha256, round_number=3)
    ]
    wait_for(lambda: len(control_plane.reports) == 2, "the report after the clock has jumped")
    status = read_status(enrolled)
    assert status is not None
    assert abs(status.clock_wrong_by + wrong) < 60
    assert status.last_work is not None
    assert abs(status.last_work.at.timestamp() - time.time()) < 60


def test_journal_that_cannot_be_written_claims_nothing_done_and_loses_nothing(
    control_plane: ControlPlane,
    reference: DatasetRef,
    start_agent: Start,
    enrolled: StateDir,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    control_plane.offer()
    control_plane.orders = [control_plane.order(BASE, dataset_sha256=reference.sha256)]

    def full(*_: object, **__: object) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "record", full)
        start_agent()
        wait_for(lambda: control_plane.failures, "the failure")
    assert control_plane.failures[0][1].code == "disk-full"
    assert (control_plane.puts, finished_runs(enrolled)) == ([], [])
    control_plane.orders = [control_plane.order(BASE, dataset_sha256=reference.sha256, attempt=2)]
    wait_for(lambda: control_plane.reports, "the report")
    assert (finished_runs(enrolled), resumptions(enrolled)) == ([1], [(1, 1, 0)])


def test_app_that_keeps_too_much_is_ended(
    control_plane: ControlPlane,
    reference: DatasetRef,
    start_agent: Start,
    enrolled: StateDir,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bench, "LARGEST", 10)
    monkeypatch.setattr(bench, "SIZE_SECONDS", 0.05)
    block = tmp_path / "block"
    block.touch()
    control_plane.offer()
    config = {"behave": "keep-and-block", "block": str(block)}
    control_plane.orders = [
        control_plane.order(BASE, dataset_sha256=reference.sha256, config=config)
    ]
    start_agent()
    wait_for(lambda: control_plane.failures, "the failure")
    failure = control_plane.failures[0][1]
    assert (failure.code, failure.detail) == (
        "checkpoint-too-large", "the app keeps 14 bytes, at most 10",
    )  # fmt: skip
    assert list(enrolled.work.iterdir()) == []


@pytest.fixture
def small_disk(enrolled: StateDir) -> Iterator[Path]:
    """The state directory on a disk of its own, of six MiB."""
    if os.geteuid() != 0:
        pytest.skip("a disk that is really full needs root, to mount one")
    files = {path.name: path.read_bytes() for path in enrolled.root.iterdir() if path.is_file()}
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m,mode=700", "tmpfs", str(enrolled.root)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("a disk that is really full needs to be mounted, which is not allowed here")
    try:
        for name, content in files.items():
            (enrolled.root / name).write_bytes(content)
        enrolled.make()
        yield enrolled.root
    finally:
        subprocess.run(["umount", "--lazy", str(enrolled.root)], check=True)


def fill(folder: Path) -> Path:
    """Use up the disk to its last byte."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return filler


def test_full_disk_is_reported_through_the_door_and_over_when_there_is_room(
    small_disk: Path,
    control_plane: ControlPlane,
    reference: DatasetRef,
    start_agent: Start,
    start_process: StartProcess,
    enrolled: StateDir,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start_agent()
    wait_for(lambda: control_plane.polls, "the first poll")
    filler = fill(small_disk)
    control_plane.offer()
    wait_for(lambda: control_plane.declines, "the refusal")
    ((code, detail),) = control_plane.declines
    assert (code, detail) == ("disk-full", "4.0 MiB are needed at the site, 0 bytes free")
    status = read_status(enrolled)
    assert status is not None
    assert status.last_error is not None
    assert status.last_error.code == "disk-full", "it is written over, where no file can be made"
    filler.unlink()
    wait_for(lambda: control_plane.claims, "the claim")

    filler = fill(small_disk)
    control_plane.orders = [control_plane.order(BASE, dataset_sha256=reference.sha256)]
    wait_for(lambda: control_plane.failures, "the failure")
    assert control_plane.failures[0][1].code == "disk-full"
    monkeypatch.setattr(storage, "needed_for", lambda _: 0)  # as if it filled up only now
    control_plane.orders = [control_plane.order(BASE, dataset_sha256=reference.sha256)]
    wait_for(lambda: len(control_plane.failures) == 2, "the failure without a look before")
    assert control_plane.failures[1][1].code == "disk-full"
    assert control_plane.reports == []

    filler.unlink()
    control_plane.orders = [control_plane.order(BASE, dataset_sha256=reference.sha256)]
    wait_for(lambda: control_plane.reports, "the report")
    assert finished_runs(enrolled) == [1]
