"""What every process of a stack and its sites holds and moves, from a thread that looks at them.

Anonymous memory and mapped file pages are the kernel's own counts, which cost nothing to read and
are read often. The USS has to be added up page by page, so it is read seldom. The kernel keeps the
peak of all that is resident (VmHWM); it is begun anew where the idle levels are taken.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from flowerbed.embedded.record import read_record
from flowerbed.runner.keeping import running_keeper
from flowerbed.runner.state import StateDir
from scripts.bench.idle import name_of
from tests.support.field import Field

STEP, LOOK = 0.05, 1.0
"""Seconds between two looks, and between two close ones."""
_STATUS = {"RssAnon": "own", "RssFile": "mapped", "VmHWM": "high"}
_MOVED = ("read_chars", "write_chars", "write_bytes")
_RESET_HIGH = "5"

Levels = dict[str, int]


def levels(pid: int) -> Levels:
    """Bytes, by kind; nothing if the process is gone."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        pairs = (line.partition(":")[::2] for line in lines)
        return {
            _STATUS[name]: int(text.split()[0]) << 10 for name, text in pairs if name in _STATUS
        }
    return {}


@dataclass(slots=True)
class Watched:
    process: psutil.Process
    name: str
    idle: Levels = field(default_factory=dict)
    peak: Levels = field(default_factory=dict)
    moved_before: Levels = field(default_factory=dict)
    moved: Levels = field(default_factory=dict)

    def look(self) -> None:
        for what, level in levels(self.process.pid).items():
            self.peak[what] = max(level, self.peak.get(what, 0))

    def look_closely(self) -> None:
        with suppress(psutil.Error):
            self.peak["uss"] = max(self.process.memory_full_info().uss, self.peak.get("uss", 0))
            counters = self.process.io_counters()
            times = self.process.cpu_times()
            self.moved = {what: getattr(counters, what) for what in _MOVED}
            self.moved["cpu"] = int(1000 * (times.user + times.system))

    def settle(self) -> None:
        """What it has now is its idle level, and its peaks begin anew."""
        with suppress(OSError):
            Path(f"/proc/{self.process.pid}/clear_refs").write_text(_RESET_HIGH)
        self.peak = {}
        self.look()
        self.look_closely()
        self.idle, self.moved_before = dict(self.peak), dict(self.moved)

    def above(self, what: str) -> int:
        """How far its peak lies above its idle level."""
        return max(0, self.peak.get(what, 0) - self.idle.get(what, 0))

    def total(self, what: str) -> int:
        """Bytes moved, or milliseconds of processor time, since the idle level was taken."""
        return self.moved.get(what, 0) - self.moved_before.get(what, 0)


class Watch:
    """All processes of the stack and its sites."""

    def __init__(self, field_: Field) -> None:
        self._field = field_
        self.all: dict[psutil.Process, Watched] = {}

    def named(self, name: str) -> list[Watched]:
        return [one for one in self.all.values() if one.name == name]

    def settle(self) -> None:
        """Begin anew, with what runs now and what it has."""
        self.all = {}
        self._find()
        for one in self.all.values():
            one.settle()

    @contextmanager
    def running(self) -> Iterator[None]:
        is_over = threading.Event()
        thread = threading.Thread(target=self._run, args=(is_over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    def _run(self, is_over: threading.Event) -> None:
        looked_at = 0.0
        while not is_over.wait(STEP):
            is_close = time.monotonic() - looked_at > LOOK
            if is_close:
                self._find()
                looked_at = time.monotonic()
            for one in self.all.values():
                one.look()
                if is_close:
                    one.look_closely()

    def _find(self) -> None:
        for root in self._roots():
            with suppress(psutil.Error):
                for process in (root, *root.children(recursive=True)):
                    if process not in self.all:
                        self.all[process] = Watched(process, _name(process))

    def _roots(self) -> Iterator[psutil.Process]:
        record = read_record(self._field.stack.layout)
        assert record is not None
        for identity in (record.keeper, record.supervisor):
            if identity is not None:
                with suppress(psutil.Error):
                    yield psutil.Process(identity.pid)
        for site in self._field.sites:
            if (keeper := running_keeper(StateDir(site.home))) is not None:
                yield keeper


def _name(process: psutil.Process) -> str:
    if any(word.endswith("keeper.py") for word in process.cmdline()):
        return "keeper"  # its command names what it keeps
    name = name_of(process).removeprefix("python ").removeprefix("flowerbed.")
    return "agent" if name == "runner" else name.rpartition(".")[2]
