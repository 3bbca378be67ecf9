"""Which process is ours, how one is kept running, and how it ends."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flowerbed.embedded import child as child_module
from flowerbed.embedded.child import Child, ChildSpec
from flowerbed.embedded.errors import ComponentFailed
from flowerbed.embedded.identity import ProcessId, stop_all
from flowerbed.embedded.listening import listens
from flowerbed.embedded.postgres import clear_leftovers
from flowerbed.embedded.probes import NotReady
from flowerbed.embedded.record import ComponentRecord, ComponentState
from tests.integration.embedded.observing import descendants

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)"


@pytest.fixture
def sleeper() -> "Iterator[subprocess.Popen[bytes]]":
    process = subprocess.Popen(["sleep", "60"], process_group=0)
    yield process
    process.kill()
    process.wait()


def identity(pid: int) -> ProcessId:
    found = ProcessId.of(pid)
    assert found is not None
    return found


def test_process_is_known_by_its_start(sleeper: "subprocess.Popen[bytes]") -> None:
    ours = identity(sleeper.pid)
    stranger = ProcessId(ours.pid, ours.started + 1, ours.boot)

    assert ours.is_alive()
    assert not stranger.is_alive()
    stranger.signal(signal.SIGKILL)
    assert stranger.wait(0)
    assert ours.is_alive()


def test_zombie_is_dead(sleeper: "subprocess.Popen[bytes]") -> None:
    ours = identity(sleeper.pid)
    sleeper.kill()

    assert ours.wait(5)
    assert not ours.is_alive()
    assert ProcessId.of(sleeper.pid) is None


def test_process_that_is_gone_may_be_signalled_and_awaited() -> None:
    process = subprocess.Popen(["sleep", "60"])
    ours = identity(process.pid)
    process.kill()
    process.wait()

    ours.signal(signal.SIGTERM)

    assert ours.wait(1)
    assert ProcessId.of(process.pid) is None


def test_wait_gives_up_at_its_deadline(sleeper: "subprocess.Popen[bytes]") -> None:
    assert not identity(sleeper.pid).wait(0.01)


def test_deaf_process_is_ended_by_force() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", f"{DEAF}; time.sleep(60)"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    ours = identity(process.pid)
    ours.signal(signal.SIGTERM)

    stop_all([ours], 0.05)

    assert process.wait() == -signal.SIGKILL


def test_listening_socket_belongs_to_its_process(sleeper: "subprocess.Popen[bytes]") -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert listens(os.getpid(), port)
        assert not listens(sleeper.pid, port)
        assert not listens(2**22 + 1, port)
    assert not listens(os.getpid(), port)


class Observed:
    """A child, and the states it went through."""

    def __init__(
        self,
        directory: Path,
        script: str,
        *,
        probe: Callable[[int], None] = lambda pid: None,
        stop_seconds: float = 5,
        start_seconds: float = 10,
    ) -> None:
        self.states: list[ComponentState] = []
        self.log = directory / "child.log"
        spec = ChildSpec(
            name="child", kind="service", argv=(sys.executable, "-c", script), address="",
            probe=probe, log=self.log, directory=directory, env=dict(os.environ),
            stop_seconds=stop_seconds, start_seconds=start_seconds,
        )  # fmt: skip
        self.child = Child(spec, lambda: self.states.append(self.record.state))

    @property
    def record(self) -> ComponentRecord:
        return self.child.record()

    @property
    def process(self) -> ProcessId:
        assert self.record.process is not None
        return self.record.process

    async def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.005)


async def test_dead_child_is_started_again(tmp_path: Path) -> None:
    observed = Observed(tmp_path, "import time; time.sleep(60)")
    await observed.child.start()
    first = observed.process

    first.signal(signal.SIGKILL)
    await observed.until(lambda: observed.states.count("ready") == 2)

    assert observed.record.restarts == 1
    assert observed.process != first
    assert observed.states == ["starting", "ready", "restarting", "starting", "ready"]
    await observed.child.stop()
    assert observed.record.state == "stopped"
    assert observed.record.process is None


async def test_process_of_an_earlier_supervisor_is_watched(
    tmp_path: Path, sleeper: "subprocess.Popen[bytes]"
) -> None:
    observed = Observed(tmp_path, "import time; time.sleep(60)", probe=never, start_seconds=0.05)
    process = identity(sleeper.pid)
    earlier = replace(observed.record, state="ready", process=process, restarts=4)

    observed.child.resume(earlier)
    await observed.until(lambda: observed.states == ["ready"])
    assert observed.process == process
    process.signal(signal.SIGKILL)
    await observed.until(lambda: "starting" in observed.states)

    assert observed.states[:3] == ["ready", "restarting", "starting"]
    assert observed.record.restarts == 5
    await observed.child.stop()


def test_lock_of_a_dead_server_does_not_keep_the_next_one_out(
    tmp_path: Path, sleeper: "subprocess.Popen[bytes]"
) -> None:
    lock = tmp_path / "postmaster.pid"
    lock.write_text(f"{sleeper.pid}\n{tmp_path}\n")
    ours = identity(sleeper.pid)
    sleeper.kill()  # and nobody asks for its exit code
    assert ours.wait(5)

    clear_leftovers(tmp_path)

    assert not lock.exists()


async def test_child_that_is_stuck_for_several_looks_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "WATCH_EVERY", 0.02)
    running = Observed(tmp_path, "import time; time.sleep(60)")
    looks = iter([None, "full", None, "full", "full", "full"])
    running.child.spec = replace(running.child.spec, stuck=lambda: next(looks, None))
    await running.child.start()
    first = running.process
    await running.until(lambda: running.states.count("ready") == 2)
    assert not first.is_alive()
    assert next(looks, "all looked at") == "all looked at"
    await running.child.stop()


async def test_death_is_noticed_without_looking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "WATCH_EVERY", 3600.0)
    observed = Observed(tmp_path, "import time; time.sleep(60)")
    await observed.child.start()

    observed.process.signal(signal.SIGKILL)
    await observed.until(lambda: observed.record.state == "restarting")

    await observed.child.stop()


async def test_each_failure_doubles_the_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = []
    wait_for = asyncio.wait_for

    async def shorter(waiting: "asyncio.Future[bool]", timeout: float) -> bool:
        pauses.append(timeout)
        return await wait_for(waiting, 0.001)

    observed = Observed(tmp_path, "import time; time.sleep(60)")
    await observed.child.start()
    monkeypatch.setattr(asyncio, "wait_for", shorter)
    for number in range(1, 9):
        observed.process.signal(signal.SIGKILL)
        await observed.until(lambda n=number: observed.states.count("ready") == n + 1)  # type: ignore[misc]
    monkeypatch.setattr(child_module, "HEALTHY_AFTER", 0.0)
    observed.process.signal(signal.SIGKILL)
    await observed.until(lambda: observed.states.count("ready") == 10)
    await observed.child.stop()

    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 0.2]


async def test_child_that_never_stays_fails_with_the_end_of_its_log(tmp_path: Path) -> None:
    observed = Observed(tmp_path, "raise SystemExit('no such bed')", probe=never)

    with pytest.raises(ComponentFailed, match="child did not start: ended with exit") as failure:
        await observed.child.start()

    assert failure.value.log_tail.splitlines() == ["no such bed"] * 3
    await observed.child.stop()


async def test_child_that_is_never_ready_fails_with_what_was_seen(tmp_path: Path) -> None:
    observed = Observed(tmp_path, "import time; time.sleep(60)", probe=never, start_seconds=0.05)

    with pytest.raises(ComponentFailed, match="was not ready after 0 s: not yet"):
        await observed.child.start()

    assert observed.record.process is None


async def test_program_that_does_not_exist_fails(tmp_path: Path) -> None:
    observed = Observed(tmp_path, "")
    missing = tmp_path / "none"
    spec = observed.child.spec
    child = Child(replace(spec, argv=(str(missing),)), lambda: None)

    with pytest.raises(ComponentFailed, match="cannot be started"):
        await child.start()


async def test_deaf_child_is_stopped_by_force_with_its_children(tmp_path: Path) -> None:
    script = f"import subprocess; {DEAF}; subprocess.run(['sleep', '60'])"
    observed = Observed(tmp_path, script, probe=lambda pid: says(observed.log), stop_seconds=0.05)
    await observed.child.start()
    pid = observed.process.pid
    await observed.until(lambda: bool(descendants(pid)))
    grandchild = identity(descendants(pid)[0])

    await observed.child.stop()

    assert grandchild.wait(5)
    assert observed.record.state == "stopped"


async def test_stop_before_start_is_nothing(tmp_path: Path) -> None:
    observed = Observed(tmp_path, "")
    await observed.child.stop()
    assert observed.record.state == "stopped"


def never(_: int) -> None:
    raise NotReady("not yet")


def says(log: Path) -> None:
    if "up" not in log.read_text():
        raise NotReady("silent")
