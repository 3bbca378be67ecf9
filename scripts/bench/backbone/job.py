"""A process of the benchmark, seen from inside: it is told when to begin, and says what it saw.

    python -m scripts.bench.backbone.job ours:relay --state-dir DIR --options '{}'

It writes lines of JSON: `{"ready": true}` once everything is imported, and then facts. It begins
when it reads a line, and ends at SIGTERM. `control.py` is the other side.
"""

import argparse
import asyncio
import json
import logging
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import uvloop

from flowerbed.embedded.stack import Stack

Record: TypeAlias = Callable[[int, float], Awaitable[None]]
"""Writes the event of that number in a transaction of its own; `at` is kept in the event."""


class Job:
    def __init__(self, stack: Stack, options: dict[str, Any]) -> None:
        self.stack = stack
        self.options = options

    async def go(self) -> None:
        """Say that all is ready, and return when told to begin."""
        self.tell(ready=True)
        await asyncio.to_thread(sys.stdin.readline)
        self.tell(began=time.time())

    def tell(self, **facts: Any) -> None:
        print(json.dumps(facts), flush=True)

    async def until_stopped(self) -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await stop.wait()


class Arrivals:
    """When the effect of each event was committed; says so when `count` have come."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._count = int(job.options["count"])
        self._n = 0
        self._first_at = 0.0
        self._latencies: list[float] = []

    def arrived(self, at: float) -> None:
        now = time.time()
        self._n += 1
        if at:
            self._first_at = self._first_at or at
            self._latencies.append(now - at)
        if self._n == self._count:
            self._job.tell(ended=now, first_at=self._first_at, latencies=self._latencies)


async def write_at_a_rate(job: Job, record: Record, at_once: int) -> None:
    """First `warm_up` events that do not count; then, when told again, `rate` every second.

    An event's time is when it was due, so that a writer which falls behind shows it.
    """
    rate, seconds, warm_up = (job.options[name] for name in ("rate", "seconds", "warm_up"))
    limit = asyncio.Semaphore(at_once)

    async def limited(number: int, at: float) -> None:
        async with limit:
            await record(number, at)

    for number in range(warm_up):
        await limited(number, 0.0)
    await job.go()
    began = time.time()
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            due = began + number / rate
            await asyncio.sleep(max(0.0, due - time.time()))
            group.create_task(limited(warm_up + number, due))
    job.tell(written=time.time())


async def write_without_pause(job: Job, record: Record, connections: int) -> None:
    """One event after the other on every connection; tells how many in `seconds`."""
    seconds, warm_up = float(job.options["seconds"]), float(job.options["warm_up"])
    begin = time.monotonic() + warm_up
    end = begin + seconds
    n_counted = 0

    async def one_connection(place: int) -> None:
        nonlocal n_counted
        number = place
        while (now := time.monotonic()) < end:
            await record(number, 0.0)
            number += connections
            n_counted += now >= begin and time.monotonic() < end

    async with asyncio.TaskGroup() as group:
        for place in range(connections):
            group.create_task(one_connection(place))
    job.tell(n_commits=n_counted)


def main() -> None:
    parser = argparse.ArgumentParser(description="One process of the benchmark.")
    parser.add_argument("role", help="MODULE:FUNCTION")
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--options", type=json.loads, default={})
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    module, _, name = options.role.partition(":")
    work = getattr(import_module(f"scripts.bench.backbone.{module}"), name)
    uvloop.run(work(Job(Stack(options.state_dir), options.options)))


if __name__ == "__main__":
    main()
