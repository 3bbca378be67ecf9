"""Many simulated runners in a few processes of their own, and how the benchmark talks to them.

Each runner has its own key pair, certificate, TLS connections and state directory. A process and
an event loop are shared: thousands of real agents would not fit beside the control plane. What is
shared beyond that are the roots of trust, the stack's CA alone: reading all of the machine's for
each client would be most of an enrolment.

State directories lie in memory where that is possible: the runners' disks are not the control
plane's.
"""

import asyncio
import gc
import logging
import os
import resource
import shutil
import ssl
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

import psutil

from flowerbed.runner.enrol import ensure_enrolled
from flowerbed.runner.errors import NotReachable
from flowerbed.runner.identity import Identity
from flowerbed.runner.patience import patiently
from flowerbed.runner.state import StateDir
from scripts.bench.scale.simulated import Ground, Runner, Samples

AT_ONCE = 16
"""Enrolments under way at the same moment."""
LAG_EVERY = 0.05
_MEMORY = Path("/dev/shm")


# --- in its own process -------------------------------------------------------------------------


class Crowd:
    """The runners of one process. Its public methods are what may be asked through the pipe."""

    def __init__(self, folder: Path, beats: bool, seed: str) -> None:
        self._folder = folder
        self._seed = seed
        self._samples = Samples()
        trust = ssl.create_default_context()
        self._ground = Ground(samples=self._samples, trust=trust, beats=beats)
        self._runners: list[tuple[Runner, asyncio.Task[None]]] = []
        self._numbers = count()
        self._threads = ThreadPoolExecutor(AT_ONCE)
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._lag = asyncio.create_task(self._measure_lag())

    async def enrol(self, invites: Sequence[str]) -> list[float]:
        """Seconds that each took; every one goes on to poll for leases at once."""
        return list(await asyncio.gather(*map(self._enrol, invites)))

    async def begin(self) -> None:
        """Forget what was measured until now."""
        samples = self._samples
        for kept in (samples.seconds, samples.moments, samples.failed):
            kept.clear()
        samples.since = time.perf_counter()
        gc.collect()
        gc.freeze()  # otherwise a collection looks at all runners, and stops them for that long

    async def found(self) -> dict[str, Any]:
        """What was measured since `begin`."""
        samples = self._samples
        return {
            "seconds": dict(samples.seconds),
            "moments": dict(samples.moments),
            "failed": dict(samples.failed),
        }

    async def count(self) -> dict[str, int]:
        return {
            "polling": sum(runner.has_polled for runner, _ in self._runners),
            "held": sum(bool(runner.leases) for runner, _ in self._runners),
            "ended": sum(task.done() for _, task in self._runners),
        }

    async def close(self) -> None:
        self._lag.cancel()
        tasks = [task for _, task in self._runners]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _enrol(self, invite: str) -> float:
        number = next(self._numbers)
        state = StateDir.at(self._folder / f"runner-{number}")
        loop = asyncio.get_running_loop()

        async def enrolled() -> Identity:
            return await loop.run_in_executor(self._threads, ensure_enrolled, state, invite)

        def waits(error: NotReachable) -> None:
            self._samples.failed[f"enrol: {error}"[:120]] += 1

        async with self._at_once:
            began = time.perf_counter()
            identity = await patiently(enrolled, on_wait=waits)
            seconds = time.perf_counter() - began
            chance = Random(f"{self._seed}-{number}")
            runner = Runner(self._ground, state, identity, chance)
        self._runners.append((runner, asyncio.create_task(runner.run())))
        return seconds

    async def _measure_lag(self) -> None:
        """How late this process is itself: part of every latency that it measures."""
        while True:
            began = time.perf_counter()
            await asyncio.sleep(LAG_EVERY)
            late = time.perf_counter() - began - LAG_EVERY
            self._samples.seconds["generator's own lag"].append(late)


def live(pipe: Connection, folder: Path, ca_file: Path, beats: bool, seed: str) -> None:
    """The process: answers one question after the other until the pipe is closed."""
    logging.getLogger("flowerbed.runner").setLevel(logging.ERROR)  # who waits is counted
    os.environ["SSL_CERT_FILE"] = str(ca_file)
    os.environ["SSL_CERT_DIR"] = str(folder)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(_answer(pipe, folder, beats, seed))


async def _answer(pipe: Connection, folder: Path, beats: bool, seed: str) -> None:
    crowd = Crowd(folder, beats, seed)
    while True:
        try:
            name, arguments = await asyncio.to_thread(pipe.recv)
        except EOFError:
            break
        pipe.send(await getattr(crowd, name)(*arguments))
    await crowd.close()


# --- in the benchmark's process -----------------------------------------------------------------


@dataclass(slots=True)
class Found:
    """What was measured by all processes together."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    moments: dict[str, list[float]] = field(default_factory=dict)
    failed: Counter[str] = field(default_factory=Counter)

    def add(self, answer: Mapping[str, Any]) -> None:
        for name, kept in (("seconds", self.seconds), ("moments", self.moments)):
            for kind, values in answer[name].items():
                kept.setdefault(kind, []).extend(values)
        self.failed.update(answer["failed"])


@dataclass(frozen=True)
class Crowds:
    """All processes with simulated runners, asked together."""

    pipes: Sequence[Connection]
    processes: Sequence[psutil.Process]

    def enrol(self, invites: Sequence[str]) -> list[float]:
        n = len(self.pipes)
        for place, pipe in enumerate(self.pipes):
            pipe.send(("enrol", (invites[place::n],)))
        return [seconds for pipe in self.pipes for seconds in pipe.recv()]

    def begin(self) -> None:
        self._ask("begin")

    def found(self) -> Found:
        found = Found()
        for answer in self._ask("found"):
            found.add(answer)
        return found

    def count(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for answer in self._ask("count"):
            total.update(answer)
        return total

    def cpu_seconds(self) -> float:
        times = [process.cpu_times() for process in self.processes]
        return sum(one.user + one.system for one in times)

    def _ask(self, name: str) -> list[Any]:
        for pipe in self.pipes:
            pipe.send((name, ()))
        return [pipe.recv() for pipe in self.pipes]


@contextmanager
def crowds(
    ca_file: Path, *, processes: int = 1, beats: bool = True, seed: int = 7
) -> Iterator[Crowds]:
    """Processes that hold no runner yet; ended, with all that they have stored, afterwards."""
    folder = Path(
        tempfile.mkdtemp(prefix="flowerbed-crowd-", dir=_MEMORY if _MEMORY.is_dir() else None)
    )
    spawn = get_context("spawn")  # a fork would share the parent's threads and sockets
    pipes, children = [], []
    try:
        for number in range(processes):
            ours, theirs = spawn.Pipe()
            home = folder / str(number)
            home.mkdir()
            arguments = (theirs, home, ca_file, beats, f"{seed}-{number}")
            child = spawn.Process(target=live, args=arguments, daemon=True)
            child.start()
            theirs.close()
            pipes.append(ours)
            children.append(child)
        yield Crowds(pipes, [psutil.Process(child.pid) for child in children])
    finally:
        for pipe in pipes:
            pipe.close()
        for child in children:
            child.join(30)
            child.kill()
        shutil.rmtree(folder, ignore_errors=True)
