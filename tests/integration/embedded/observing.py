"""What the tests see of a stack: its processes, and conditions to wait for."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from flowerbed.embedded.errors import NotRunning
from flowerbed.embedded.identity import ProcessId
from flowerbed.embedded.record import ComponentRecord, StackRecord, read_record
from flowerbed.embedded.stack import Stack
from flowerbed.embedded.status import ComponentStatus, read_status


def record(stack: Stack) -> StackRecord:
    found = read_record(stack.layout)
    assert found is not None
    return found


def component(stack: Stack, name: str) -> ComponentRecord:
    return next(item for item in record(stack).components if item.name == name)


def process(stack: Stack, name: str) -> ProcessId:
    found = component(stack, name).process
    assert found is not None
    return found


def processes(stack: Stack) -> list[ProcessId]:
    """The supervisor and every process below it."""
    supervisor = record(stack).supervisor
    found = [ProcessId.of(pid) for pid in (supervisor.pid, *descendants(supervisor.pid))]
    return [item for item in found if item is not None]


def status(stack: Stack, name: str) -> ComponentStatus | None:
    try:
        found = read_status(stack.layout)
    except NotRunning:
        return None
    return next((item for item in found.components if item.name == name), None)


def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(0.02)


def descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                stat = (directory / "stat").read_text()
            except OSError:
                continue
            parent = int(stat[stat.rindex(")") + 2 :].split()[1])
            children.setdefault(parent, []).append(int(directory.name))
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def command_and_environment(pid: int) -> bytes:
    parts = []
    for name in ("cmdline", "environ"):
        try:
            parts.append(Path(f"/proc/{pid}/{name}").read_bytes())
        except OSError:
            continue
    return b"\0".join(parts)


def is_root() -> bool:
    return os.geteuid() == 0
