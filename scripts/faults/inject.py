"""Do a fault to a ground, and take it back when its time is over."""

import heapq
import signal
import time
from collections.abc import Callable
from itertools import count

from scripts.faults.ground import Ground
from scripts.faults.plan import Fault

SLOW_LATENCY, SLOW_RATE = 0.15, 200_000.0
"""Seconds a block, and bytes a second."""
Undo = Callable[[], None]


class Injector:
    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._undo: list[tuple[float, int, Undo]] = []
        self._order = count()
        self.done = 0

    def inject(self, fault: Fault) -> bool:
        """False if there was nothing to hurt: the process is not there at this moment."""
        undo = self._do(fault)
        if undo is None:
            return False
        self.done += 1
        if fault.seconds:
            due = time.monotonic() + fault.seconds
            heapq.heappush(self._undo, (due, next(self._order), undo))
        return True

    def take_back(self, *, all_: bool = False) -> None:
        """End the faults whose time is over, or all."""
        while self._undo and (all_ or self._undo[0][0] <= time.monotonic()):
            heapq.heappop(self._undo)[2]()

    def _do(self, fault: Fault) -> Undo | None:
        ground, target = self._ground, fault.target
        links, disks = ground.links, ground.disks
        match fault.kind:
            case "kill" | "stop":
                return self._signal(fault)
            case "cut" | "hole" | "slow":
                assert links is not None
                if fault.kind == "cut":
                    links.cut(target)
                elif fault.kind == "hole":
                    links.black_hole(target)
                else:
                    links.slow(target, SLOW_LATENCY, SLOW_RATE)
                return lambda: links.heal(target)
            case "fill":
                assert disks is not None
                disks.fill(target)
                return lambda: disks.free(target)
            case "skew":
                ground.skew(target, fault.amount)
                return lambda: ground.skew(target, 0.0)
            case "restart":
                ground.restart_all()
                return _nothing

    def _signal(self, fault: Fault) -> Undo | None:
        process = self._ground.processes().get(fault.target)
        if process is None:
            return None
        if fault.kind == "kill":
            process.signal(signal.SIGKILL)
            return _nothing
        process.signal(signal.SIGSTOP)
        return lambda: process.signal(signal.SIGCONT)


def _nothing() -> None:
    """There is nothing to take back: whoever keeps it starts it again."""
