"""Log lines of a ClientApp on their way to the operator: bounded, scrubbed, best effort.

    worker's output ── lines ──> enough room? ──> waiting ── scrubbed ──> the door
                                     └─ no: counted, and said in the line that takes their place

Nothing here slows training down or fails it. What cannot be sent is left out.
"""

import asyncio
import logging
import re
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import islice

from flowerbed.contracts.door import (
    LONGEST_LOG_LINE,
    MOST_LOG_LINES,
    LogBatch,
    LogKind,
    LogLine,
)
from flowerbed.runner import clock
from flowerbed.runner.errors import RunnerError
from flowerbed.runner.patience import patiently

logger = logging.getLogger(__name__)

PER_SECOND = 20.0
BURST = 200
PER_LEASE = 20_000
MOST_WAITING = 1_000
GATHER_SECONDS = 1.0
LAST_WORDS_SECONDS = 1.0
LONGEST_RAW = 4_096
"""Bytes of one line that are looked at; the rest of it is not kept."""
KEPT = "this site keeps its log lines"

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")

Send = Callable[[LogBatch], Awaitable[object]]
Scrub = Callable[[str], str]


class Splitter:
    """Lines out of pieces of a stream. Of a progress bar only its last state is a line."""

    def __init__(self) -> None:
        self._rest = b""

    def lines(self, piece: bytes) -> list[str]:
        *whole, rest = (self._rest + piece).split(b"\n")
        found = [self._line(line) for line in whole]
        if len(rest) > LONGEST_RAW:
            rest = rest[rest.rfind(b"\r") + 1 :][:LONGEST_RAW]
        self._rest = rest
        return [line for line in found if line]

    def last(self) -> list[str]:
        """What was begun and not ended."""
        rest, self._rest = self._rest, b""
        return [line] if (line := self._line(rest)) else []

    def _line(self, raw: bytes) -> str:
        shown = raw.rstrip(b"\r").rpartition(b"\r")[2][:LONGEST_RAW]
        return _ANSI.sub("", shown.decode(errors="replace")).expandtabs(4).rstrip()


class Allowance:
    """So many a second, some more at once after a pause, and so many in all."""

    def __init__(self) -> None:
        self._left, self._in_all, self._at = float(BURST), PER_LEASE, time.monotonic()

    @property
    def is_used_up(self) -> bool:
        return self._in_all <= 0

    def take(self) -> bool:
        now = time.monotonic()
        self._left = min(BURST, self._left + (now - self._at) * PER_SECOND)
        self._at = now
        if self._left < 1 or self._in_all <= 0:
            return False
        self._left -= 1
        self._in_all -= 1
        return True


class LogLines:
    """Of one lease. `scrubber` makes the function that takes out what must not leave the site;
    None: the site keeps its lines, and says so once."""

    def __init__(self, send: Send, scrubber: Callable[[], Scrub] | None, epoch: int) -> None:
        self._send = send
        self._scrubber = scrubber
        self._epoch = epoch
        self._run = uuid.uuid4().hex
        self._number = 0
        self._splitter = Splitter()
        self._allowance = Allowance()
        self._waiting: deque[LogLine] = deque()
        self._left_out = 0
        self._is_over = False
        self._filled, self._hurried = asyncio.Event(), asyncio.Event()
        if scrubber is None:
            self._put("kept", KEPT)

    def take(self, piece: bytes) -> None:
        """Some output of the worker. Never waits."""
        if self._scrubber is not None and not self._is_over:
            for line in self._splitter.lines(piece):
                self._take(line)

    def hurry(self) -> None:
        """Do not wait for more lines: some work has ended."""
        self._hurried.set()

    async def ship(self) -> None:
        """Hand lines out for as long as the lease lasts; ends when nobody takes them any more."""
        try:
            while True:
                await self._filled.wait()
                with suppress(TimeoutError):  # not `wait_for`, which may swallow a cancellation
                    async with asyncio.timeout(GATHER_SECONDS):
                        await self._hurried.wait()
                self._hurried.clear()
                await self._send_waiting()
        except RunnerError as error:
            self._is_over = True
            self._waiting.clear()
            logger.info("log lines stay at the site: %s", error)

    async def close(self) -> None:
        """Say the last words, if somebody takes them at once."""
        if self._scrubber is not None and not self._is_over:
            for line in self._splitter.last():
                self._take(line)
        with suppress(RunnerError, TimeoutError):
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await self._send_waiting()

    # --- helpers, in order of use -------------------------------------------

    def _take(self, line: str) -> None:
        if self._is_over:
            return
        if len(self._waiting) >= MOST_WAITING or not self._allowance.take():
            self._left_out += 1
            self._filled.set()
            return
        self._say_left_out()
        self._put("line", line)
        if self._allowance.is_used_up:
            self._put("left-out", f"{PER_LEASE} lines under this lease: the site keeps the rest")
            self._is_over = True

    def _say_left_out(self) -> None:
        if self._left_out:
            self._put("left-out", f"{self._left_out} lines left out: too many at once")
            self._left_out = 0

    def _put(self, kind: LogKind, text: str) -> None:
        self._number += 1
        line = LogLine.model_construct(number=self._number, at=clock.utc(), kind=kind, text=text)
        self._waiting.append(line)
        self._filled.set()

    async def _send_waiting(self) -> None:
        self._say_left_out()
        while self._waiting:
            first = list(islice(self._waiting, MOST_LOG_LINES))
            batch = LogBatch(epoch=self._epoch, run=self._run, lines=self._scrubbed(first))
            await patiently(lambda: self._send(batch))  # noqa: B023  # awaited before the next
            for _ in first:
                self._waiting.popleft()
        self._filled.clear()

    def _scrubbed(self, lines: list[LogLine]) -> tuple[LogLine, ...]:
        scrub = self._scrubber() if self._scrubber is not None else str
        return tuple(
            LogLine(number=line.number, at=line.at, kind=line.kind, text=_cut(scrub(line.text)))
            for line in lines
        )


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_LOG_LINE else f"{text[: LONGEST_LOG_LINE - 1]}…"
