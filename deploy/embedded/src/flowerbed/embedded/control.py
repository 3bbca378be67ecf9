"""Starting and stopping a stack from outside: `up` and `down`."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from flowerbed.contracts.topology import SERVICES
from flowerbed.embedded.errors import BadInput, ComponentFailed, EmbeddedError
from flowerbed.embedded.layout import Layout
from flowerbed.embedded.leftovers import end_leftovers
from flowerbed.embedded.logfiles import open_log, tail
from flowerbed.embedded.progress import Progress, received
from flowerbed.embedded.record import StackRecord, read_record
from flowerbed.embedded.stack import Stack

START_SECONDS = 180.0
STOP_SECONDS = 90.0


def up(
    state_dir: Path | None = None,
    services: tuple[str, ...] = SERVICES,
    progress: Callable[[Progress], None] = lambda step: None,
) -> Stack:
    """Return when the stack runs and all of it is ready; one that runs already is left as it is.

    Raises:
        BadInput: the directory or a service's name is no good.
        ComponentFailed: something did not start; then nothing is left running.
    """
    if unknown := set(services) - set(SERVICES):
        raise BadInput(f"service {min(unknown)!r} is none of {', '.join(SERVICES)}")
    if not sys.platform.startswith("linux"):
        raise BadInput(f"an embedded stack runs on Linux, not on {sys.platform}")
    layout = Layout.at(state_dir)
    layout.make()
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        record = read_record(layout)
        if record is not None and record.is_supervised():
            if record.state == "running":
                return Stack(layout.root)
            time.sleep(0.05)  # another `up` or `down` is at work
        elif _launch(layout, services, progress):
            return Stack(layout.root)
        else:
            time.sleep(0.05)
    raise EmbeddedError(f"the stack in {layout.root} did not become ready in {START_SECONDS} s")


def down(state_dir: Path | None = None) -> bool:
    """End every process of the stack, keep its data. False if there was nothing to end.

    Works without a supervisor as well, from what it wrote down before it was killed.
    """
    layout = Layout.at(state_dir)
    record = read_record(layout)
    if record is None:
        return False
    supervised = record.is_supervised()
    if supervised:
        record.supervisor.signal(signal.SIGTERM)
        if not record.supervisor.wait(STOP_SECONDS):
            record.supervisor.signal(signal.SIGKILL)
            record.supervisor.wait(5)
    latest: StackRecord | None = read_record(layout)
    leftovers = end_leftovers(latest) if latest is not None else []
    return supervised or bool(leftovers)


def _launch(
    layout: Layout, services: tuple[str, ...], progress: Callable[[Progress], None]
) -> bool:
    """Start a supervisor and listen to it until the stack is ready; False if there is one."""
    reader, writer = os.pipe()
    log = layout.log("supervisor")
    with open_log(log) as output:
        launcher = subprocess.Popen(
            (
                sys.executable, "-P", "-m", "flowerbed.embedded.supervisor",
                "--state-dir", str(layout.root),
                "--services", ",".join(services), "--progress", str(writer),
            ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            pass_fds=(writer,),
            start_new_session=True,
        )  # fmt: skip
    os.close(writer)
    last = None
    for last in received(reader):
        if last.step not in ("taken", "done", "failed"):
            progress(last)
    launcher.wait()
    if last is None or last.step not in ("taken", "done", "failed"):
        raise ComponentFailed("supervisor", "it ended without a word", tail(log, 15))
    if last.step == "failed":
        raise _failure(last)
    return last.step == "done"


def _failure(last: Progress) -> ComponentFailed:
    reason = last.reason.removeprefix(f"{last.component} did not start: ")
    return ComponentFailed(last.component, reason, last.log_tail)
