"""Energy that this machine uses, from its own counters: RAPL for processors, NVML for graphics.

The counters are read through Zeus (`pip install flowerbed-runner[power]`). They are the machine's:
what else runs on it at the same time is counted too. Where there is none, there is no figure, but
a reason.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

logger = logging.getLogger(__name__)

Reason: TypeAlias = Literal["no-counter", "no-library", "not-permitted", "not-readable"]
Counter: TypeAlias = Callable[[], float]
"""Joules since some moment of its own."""

TELLTALES = (Path("/sys/class/powercap/intel-rapl"), Path("/dev/nvidiactl"))
"""Without any of them there is nothing to count, and no library has to be loaded to know."""
SHORTEST = 0.001
"""Seconds: RAPL is renewed once a millisecond."""


@dataclass(frozen=True, slots=True)
class Reading:
    joules: float
    at: float


class Power:
    """`find`: the machine's counters, or why there are none; looked for once. It blocks."""

    def __init__(self, find: "Callable[[], tuple[Counter, ...] | Reason] | None" = None) -> None:
        self._find = find or find_counters
        self._counters: tuple[Counter, ...] | None = None
        self.reason: Reason | None = None
        """Why nothing can be measured; None as long as it can, or before the first try."""

    async def reading(self) -> Reading | None:
        """As `read`, which blocks; where nothing can be measured it costs nothing."""
        return None if self.reason is not None else await asyncio.to_thread(self.read)

    async def used_since(self, before: Reading | None) -> float | None:
        return None if before is None else await asyncio.to_thread(self.since, before)

    def read(self) -> Reading | None:
        """None, with the `reason`, where it cannot be read."""
        if self._counters is None:
            found = self._find()
            if isinstance(found, str):
                self.reason, self._counters = found, ()
            else:
                self._counters = found
        if not self._counters:
            return None
        try:
            return Reading(sum(counter() for counter in self._counters), time.monotonic())
        except Exception as error:  # whatever a driver may raise: no work fails for it
            self.reason, self._counters = "not-readable", ()
            logger.warning("energy is not measured any more: %s", error)
            return None

    def since(self, before: Reading | None) -> float | None:
        """Joules used since then; None where it cannot be said."""
        after = self.read() if before is not None else None
        if before is None or after is None or after.at - before.at < SHORTEST:
            return None
        used = after.joules - before.joules
        return used if used >= 0 else None  # a counter that began anew


def find_counters() -> tuple[Counter, ...] | Reason:
    if not any(path.exists() for path in TELLTALES):
        return "no-counter"
    try:
        from zeus.device import get_cpus, get_gpus
        from zeus.device.cpu.common import ZeusCPUNoPermissionError
    except ImportError:
        return "no-library"
    reason: Reason = "no-counter"
    counters: list[Counter] = []
    try:
        counters += _counters_of(get_cpus(), _processor)
    except (ZeusCPUNoPermissionError, PermissionError):
        reason = "not-permitted"
    except Exception as error:  # Zeus has an exception of its own for each way to fail
        logger.info("processors are not measured: %s", error)
    try:
        counters += _counters_of(get_gpus(), _graphics)
    except Exception as error:
        logger.info("graphics cards are not measured: %s", error)
    return tuple(counters) or reason


def _counters_of(devices: Any, read: Callable[[Any, int], float]) -> list[Counter]:
    def counter(index: int) -> Counter:
        return lambda: read(devices, index)

    found = [counter(index) for index in range(len(devices))]
    for one in found:
        one()  # or it is none
    return found


def _processor(devices: Any, index: int) -> float:
    measured = devices.get_total_energy_consumption(index)
    return float(measured.cpu_mj + (measured.dram_mj or 0.0)) / 1000


def _graphics(devices: Any, index: int) -> float:
    return float(devices.get_total_energy_consumption(index)) / 1000
