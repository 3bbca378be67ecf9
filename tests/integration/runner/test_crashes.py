"""Whichever process dies at whichever moment, no work is trained twice and none is lost."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from flowerbed.contracts.values import DatasetRef
from flowerbed.runner import bench
from flowerbed.runner.state import StateDir
from tests.integration.runner.conftest import BASE, AgentProcess, AgentThread
from tests.integration.runner.control_plane import CLIENT, FEDERATION, LEASE, ControlPlane, wait_for
from tests.integration.runner.watching import (
    finished_runs,
    has_ended,
    resumptions,
    training_process,
)

Start = Callable[[], AgentThread]
StartProcess = Callable[..., AgentProcess]


def test_repeated_order_is_answered_without_training(
    control_plane: ControlPlane, reference: DatasetRef, start_agent: Start, enrolled: StateDir
) -> None:
    control_plane.offer()
    sha256 = reference.sha256
    control_plane.orders = [
        control_plane.order(BASE, dataset_sha256=sha256),
        control_plane.order(BASE, dataset_sha256=sha256),
        control_plane.order(BASE, dataset_sha256=sha256, attempt=2),
    ]
    start_agent()
    wait_for(lambda: len(control_plane.reports) == 3, "three reports")
    assert finished_runs(enrolled) == [1]
    first, again, other_attempt = [report for _, report in control_plane.reports]
    assert first == again
    assert other_attempt.artifact is not None
    assert other_attempt.artifact.uri.endswith(f"{FEDERATION}.1.2.train.{CLIENT}")
    updates = [data for name, data in control_plane.files.items() if name.startswith("/updates")]
    assert len(updates) == 2
    assert updates[0] == updates[1]


@pytest.mark.parametrize("moment", ["answered", "journalled", "uploaded"])
def test_agent_killed_after_training_reports_without_training_again(
    moment: str,
    control_plane: ControlPlane,
    reference: DatasetRef,
    start_process: StartProcess,
    start_agent: Start,
    enrolled: StateDir,
) -> None:
    control_plane.offer()
    control_plane.orders = [control_plane.order(BASE, dataset_sha256=reference.sha256)]
    start_process(kill_at=moment).wait_killed()
    assert control_plane.reports == []
    start_agent()
    wait_for(lambda: control_plane.reports, "the report")
    assert finished_runs(enrolled) == [1]
    assert len(control_plane.puts) == {"answered": 1, "journalled": 1, "uploaded": 2}[moment]
    resumed = [(1, 1, 0)] if moment == "answered" else [(0, None, 0)]
    assert resumptions(enrolled) == resumed, "a result that nobody had read is found"
    assert list(enrolled.work.iterdir()) == []
    control_plane.orders = [
        control_plane.order(BASE, dataset_sha256=reference.sha256, round_number=2)
    ]
    wait_for(lambda: len(control_plane.reports) == 2, "the next report")
    calls = [report.metrics["calls"] for _, report in control_plane.reports]
    assert calls == [1, 2], "what the app remembers has outlived agent and worker, once"


def test_lease_lost_and_issued_anew_keeps_finished_work(
    control_plane: ControlPlane, reference: DatasetRef, start_agent: Start, enrolled: StateDir
) -> None:
    control_plane.offer()
    order = control_plane.order(BASE, dataset_sha256=reference.sha256)
    control_plane.fail_next("/report", 410)
    control_plane.orders = [order]
    start_agent()
    wait_for(lambda: control_plane.puts, "the upload")
    control_plane.lost.add((LEASE, 1))
    control_plane.orders = [
        control_plane.order(BASE, dataset_sha256=reference.sha256, lease_epoch=2, attempt=2)
    ]
    control_plane.offer(epoch=2)
    wait_for(lambda: control_plane.reports, "the report under the new epoch")
    assert control_plane.reports[0][1].epoch == 2
    assert finished_runs(enrolled) == [1]


def test_worker_killed_in_the_middle_of_training_repeats_the_order(
    control_plane: ControlPlane,
    reference: DatasetRef,
    start_agent: Start,
    enrolled: StateDir,
    tmp_path: Path,
) -> None:
    block = tmp_path / "block"
    block.touch()
    control_plane.offer()
    config = {"behave": "block", "block": str(block)}
    control_plane.orders = [
        control_plane.order(BASE, dataset_sha256=reference.sha256, config=config)
    ]
    start_agent()
    first = training_process(block)
    first.kill()
    second = training_process(block, other_than=first)
    block.unlink()
    wait_for(lambda: control_plane.reports, "the report")
    assert second.is_running(), "the new worker stays warm"
    assert finished_runs(enrolled) == [1]
    assert resumptions(enrolled) == [(0, None, 1)], "nothing was kept"


def test_worker_goes_on_from_what_its_predecessor_kept(
    control_plane: ControlPlane, reference: DatasetRef, start_agent: Start, enrolled: StateDir
) -> None:
    control_plane.offer()
    config = {"behave": "keep-and-die"}
    control_plane.orders = [
        control_plane.order(BASE, dataset_sha256=reference.sha256, config=config)
    ]
    start_agent()
    wait_for(lambda: control_plane.reports, "the report")
    assert (finished_runs(enrolled), resumptions(enrolled)) == ([1], [(1, 5, 0)])
    assert list(enrolled.work.iterdir()) == [], "finished work keeps no checkpoint"


def test_killed_agent_goes_on_from_the_checkpoint_without_the_store(
    control_plane: ControlPlane,
    reference: DatasetRef,
    start_agent: Start,
    start_process: StartProcess,
    enrolled: StateDir,
    tmp_path: Path,
) -> None:
    block = tmp_path / "block"
    block.touch()
    control_plane.offer()
    config = {"behave": "keep-and-block", "block": str(block)}
    control_plane.orders = [
        control_plane.order(BASE, dataset_sha256=reference.sha256, config=config)
    ]
    agent = start_process()
    training_process(block)
    (work,) = enrolled.work.iterdir()
    assert (work.stat().st_mode & 0o777, (work / "checkpoint").stat().st_mode & 0o777) == (
        0o700,
        0o700,
    )
    agent.kill()
    for name in [name for name in control_plane.files if name.startswith("/base/")]:
        del control_plane.files[name]
    block.unlink()
    start_agent()
    wait_for(lambda: control_plane.reports, "the report")
    assert (finished_runs(enrolled), resumptions(enrolled)) == ([1], [(1, 5, 0)])


def test_work_that_was_refused_keeps_nothing_and_work_cut_short_its_checkpoint(
    control_plane: ControlPlane,
    reference: DatasetRef,
    start_agent: Start,
    enrolled: StateDir,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bench, "LEEWAY_SECONDS", 0)
    block = tmp_path / "block"
    block.touch()
    control_plane.offer()
    sha256 = reference.sha256
    slow = {"behave": "keep-and-block", "block": str(block)}
    control_plane.orders = [
        control_plane.order(BASE, dataset_sha256=sha256, config={"behave": "raise"})
    ]
    start_agent()
    wait_for(lambda: control_plane.failures, "the refusal")
    assert list(enrolled.work.iterdir()) == []
    control_plane.orders = [
        control_plane.order(
            BASE, dataset_sha256=sha256, round_number=2, config=slow, exp=int(time.time()) + 3
        )
    ]
    wait_for(lambda: len(control_plane.failures) == 2, "the deadline")
    assert control_plane.failures[1][1].code == "deadline-passed"
    block.unlink()
    control_plane.orders = [
        control_plane.order(BASE, dataset_sha256=sha256, round_number=2, attempt=2, config=slow)
    ]
    wait_for(lambda: control_plane.reports, "the next attempt")
    assert resumptions(enrolled)[-1] == (1, 5, 0)


def test_worker_dies_with_its_agent(
    control_plane: ControlPlane, reference: DatasetRef, start_process: StartProcess, tmp_path: Path
) -> None:
    block = tmp_path / "block"
    block.touch()
    control_plane.offer()
    config = {"behave": "block", "block": str(block)}
    control_plane.orders = [
        control_plane.order(BASE, dataset_sha256=reference.sha256, config=config)
    ]
    agent = start_process()
    worker = training_process(block)
    assert worker.cmdline()[1].endswith("tiny_worker.py"), "arguments say nothing of the data"
    assert "KILL_AT" not in worker.environ(), "the agent's environment is not handed on"
    agent.kill()
    wait_for(lambda: has_ended(worker), "the worker to end", 5)


def test_heartbeats_go_on_while_the_app_runs(
    control_plane: ControlPlane, reference: DatasetRef, start_agent: Start, tmp_path: Path
) -> None:
    block = tmp_path / "block"
    block.touch()
    control_plane.heartbeat_seconds = 0.05
    control_plane.offer()
    config = {"behave": "block", "block": str(block)}
    control_plane.orders = [
        control_plane.order(BASE, dataset_sha256=reference.sha256, config=config)
    ]
    start_agent()
    worker = training_process(block)
    beats = control_plane.beats
    wait_for(lambda: control_plane.beats >= beats + 3, "heartbeats")
    control_plane.lost.add((LEASE, 1))
    wait_for(lambda: has_ended(worker), "the work of a lost lease to end")
    assert control_plane.reports == []


def test_same_order_gives_the_same_bytes_in_another_worker(
    control_plane: ControlPlane, reference: DatasetRef, start_agent: Start, enrolled: StateDir
) -> None:
    control_plane.offer()
    order = control_plane.order(BASE, dataset_sha256=reference.sha256)
    control_plane.orders = [order]
    start_agent()
    wait_for(lambda: control_plane.reports, "the report")
    for file in enrolled.results.glob("*.safetensors"):
        file.unlink()
    control_plane.orders = [order]
    wait_for(lambda: len(control_plane.reports) == 2, "the second report")
    first, second = [report for _, report in control_plane.reports]
    assert finished_runs(enrolled) == [2], "a result that is gone is made again"
    assert first.artifact == second.artifact
    assert first.metrics["train-loss"] == second.metrics["train-loss"]
    assert np.isfinite(first.metrics["train-loss"])


def test_lease_that_is_told_to_end_many_times_leaves_no_worker(
    control_plane: ControlPlane, reference: DatasetRef, start_agent: Start
) -> None:
    control_plane.offer()
    agent = start_agent()
    worker = psutil.Process(wait_for(agent.warm_worker, "a worker that is loaded"))
    agent.pester()
    wait_for(lambda: has_ended(worker), "the worker's end")
