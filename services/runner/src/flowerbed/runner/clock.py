"""The one place where the runner reads a clock; what it answers is the control plane's time.

    this machine's clock ── first answer of the door ──> the door's `Date`, carried on since boot

Deadlines and the times in signed claims are the control plane's, so its clock judges them: a site
whose own clock is an hour wrong works as every other. The door says what time it is in the `Date`
header of each answer (RFC 9110, section 6.6.1), over TLS with the control plane's own CA on both
sides: whoever could forge that header could sign the orders as well, so believing it opens no door.
(The enrolment door is as good: its CA is the one that the invite names.) Nobody else is asked.
In between, time goes on with the clock since boot, which counts sleep and which nobody can set.

Until the first answer there is only the machine's clock; `doubt` says how far it may be wrong.

For tests: `FLOWERBED_CLOCK_OFFSET_FILE` names a file with seconds by which the machine's clock is
wrong; it is read anew each time.
"""

import email.utils
import os
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

OFFSET_FILE_VARIABLE = "FLOWERBED_CLOCK_OFFSET_FILE"
DATE_SECONDS = 2.0
"""How much later it may be than a `Date`: whole seconds, renewed once a second."""
DOUBT = timedelta(days=1)

_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def machine() -> float:
    """Seconds since 1970, as this machine has it."""
    return time.time() + _offset_for_tests()


def since_boot() -> float:
    """Seconds that only ever grow, asleep or awake."""
    return time.clock_gettime(_BOOT)


class Clock:
    def __init__(self) -> None:
        self._ahead_of_boot: float | None = None

    @property
    def is_learned(self) -> bool:
        return self._ahead_of_boot is not None

    def now(self) -> float:
        """Seconds since 1970 at the control plane."""
        ahead = self._ahead_of_boot
        return machine() if ahead is None else since_boot() + ahead

    def utc(self) -> datetime:
        return datetime.fromtimestamp(self.now(), UTC)

    def doubt(self) -> timedelta:
        """By how much `now` may be wrong, for decisions that cannot be taken back."""
        return timedelta(0) if self.is_learned else DOUBT

    def wrong_by(self) -> float:
        """Seconds by which the machine's clock is ahead of the control plane's."""
        return machine() - self.now()

    def learn(self, date: str | None, sent_at: float, received_at: float) -> None:
        """Correct ourselves by an answer, no more than it proves; times are `since_boot`."""
        try:
            told = email.utils.parsedate_to_datetime(date or "").timestamp()
        except ValueError:
            return
        ahead = self._ahead_of_boot
        if ahead is None:
            ahead = machine() - since_boot()
        earliest, latest = told - received_at, told + DATE_SECONDS - sent_at
        self._ahead_of_boot = min(max(ahead, earliest), latest)


def _offset_for_tests() -> float:
    path = os.environ.get(OFFSET_FILE_VARIABLE)
    if path is None:
        return 0.0
    with suppress(OSError, ValueError):
        return float(Path(path).read_text())
    return 0.0


_clock = Clock()
now = _clock.now
utc = _clock.utc
doubt = _clock.doubt
wrong_by = _clock.wrong_by
learn = _clock.learn
