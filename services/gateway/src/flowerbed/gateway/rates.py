"""How often somebody may ask: a cell rate (GCRA), one number a name, so that it costs nothing.

A rate of 600 a minute is one every 0.1 s, and up to 600 at once by whoever was silent for a minute.
"""

import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_RATE = re.compile(r"([1-9][0-9]{0,8}) */ *([1-9][0-9]{0,5} *)?(second|minute|hour)s?")
_SECONDS = {"second": 1, "minute": 60, "hour": 3600}

MOST_NAMES = 50_000


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` requests in `seconds`."""

    count: int
    seconds: float

    @classmethod
    def parse(cls, text: str) -> "Rate":
        """`600/minute`, `10/second`, `100/5 minutes`.

        Raises:
            ValueError: it is no rate.
        """
        match = _RATE.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is no rate such as 600/minute")
        return cls(int(match[1]), int(match[2] or 1) * _SECONDS[match[3]])


@dataclass(frozen=True, slots=True)
class Verdict:
    """`remaining`: how many more at once. `retry_after`: seconds until one more may be asked."""

    is_allowed: bool
    remaining: int
    retry_after: float


class Limiter:
    """One rate for each name. `clock` is monotonic."""

    def __init__(
        self,
        rate: Rate,
        *,
        clock: Callable[[], float] = time.monotonic,
        most_names: int = MOST_NAMES,
    ) -> None:
        self.rate = rate
        self._clock = clock
        self._most_names = most_names
        self._every = rate.seconds / rate.count
        self._free_at: OrderedDict[str, float] = OrderedDict()
        """When all of a name's requests will be forgotten; who is not in here asked nothing."""

    def take(self, name: str) -> Verdict:
        """Count one request of `name`, if it is allowed."""
        now = self._clock()
        free_at = max(self._free_at.get(name, now), now) + self._every
        room = self.rate.seconds - (free_at - now)
        if room < -1e-9:
            return Verdict(False, 0, -room)
        self._free_at[name] = free_at
        self._free_at.move_to_end(name)
        if len(self._free_at) > self._most_names:
            self._free_at.popitem(last=False)  # who was longest silent
        return Verdict(True, math.floor(room / self._every + 1e-6), 0.0)
