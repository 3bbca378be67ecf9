"""Clock, sleep and randomness of a ServerApp's process: `main` run again does the same.

The clock shows what the journal says, and moves by what is slept: real time has passed by then, or
passed in the run before. What cannot be had this way shows when the app sends other messages than
it did: see `differences`.
"""

import datetime
import os
import random
import threading
import time
from concurrent.futures import Future
from itertools import count
from typing import Any, SupportsIndex

from flowerbed.flower_apps.seeded import seed_all

_TICK = 1e-6


class Clock:
    """`is_replayed`: what happens has happened before, so nothing needs to be waited for."""

    def __init__(self, started_at: float, *, is_replayed: bool) -> None:
        self.is_replayed = is_replayed
        self._now = started_at
        self._sleep = time.sleep
        self._lock = threading.Lock()

    def time(self) -> float:
        """Later with each look, as a clock is."""
        return self.pass_by(_TICK)

    def pass_by(self, seconds: float) -> float:
        with self._lock:
            self._now += seconds
            return self._now

    def set(self, at: float) -> None:
        with self._lock:
            self._now = max(self._now, at)

    def sleep(self, seconds: float | SupportsIndex, /) -> None:
        seconds = float(seconds)
        if not self.is_replayed:
            self._sleep(seconds)
        self.pass_by(seconds)


def install(clock: Clock, seed: int) -> None:
    """From here on, this process has that clock, and no randomness but the seed's.

    `time.monotonic` stays: event loops and locks wait by it.
    """
    time.time = clock.time
    time.time_ns = lambda: int(clock.time() * 1e9)
    time.perf_counter = clock.time
    time.perf_counter_ns = time.time_ns
    time.sleep = clock.sleep
    _install_datetime(clock)
    _install_entropy(seed)
    _install_futures()
    seed_all(seed)


def _install_datetime(clock: Clock) -> None:
    real: Any = datetime.datetime

    class Kind(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, real)

    class Replayed(real, metaclass=Kind):  # type: ignore[misc]  # of a class that is a value
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return real.fromtimestamp(clock.time(), tz)

        @classmethod
        def utcnow(cls) -> Any:
            return real.fromtimestamp(clock.time(), datetime.UTC).replace(tzinfo=None)

        @classmethod
        def today(cls) -> Any:
            return cls.now()

    Replayed.__name__ = Replayed.__qualname__ = "datetime"
    Replayed.__module__ = "datetime"
    datetime.datetime = Replayed  # type: ignore[misc]  # that is the point


def _install_futures() -> None:
    """Futures in a set are in the order of their making: Flower's older strategies add up so."""
    begin, numbers = Future.__init__, count()

    def numbered(self: Future[Any]) -> None:
        begin(self)
        self._number = next(numbers)  # type: ignore[attr-defined]

    Future.__init__ = numbered  # type: ignore[method-assign,assignment]
    Future.__hash__ = lambda self: self._number  # type: ignore[method-assign,attr-defined]


def _install_entropy(seed: int) -> None:
    """`os.urandom`, and with it uuid4, secrets and NumPy's fresh generators."""
    source = random.Random(f"entropy {seed}")
    seed_of_random = random.Random.seed

    def urandom(size: int, /) -> bytes:
        return source.randbytes(size)

    def seeded(self: random.Random, a: Any = None, version: int = 2) -> None:
        seed_of_random(self, source.getrandbits(128) if a is None else a, version)

    os.urandom = urandom
    random._urandom = urandom  # type: ignore[attr-defined]  # what SystemRandom reads
    random.Random.seed = seeded  # type: ignore[method-assign]
