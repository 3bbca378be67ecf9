"""How durations, moments and names are said."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

_NAMED = 4
_FRAME = re.compile(r"\s*[\w.?]+:\d+ in ")
"""As the runner tells a traceback: `  module:line in function`."""


def lasted(time: timedelta) -> str:
    """Two units at the most: `12 s`, `3 min 5 s`, `2 h 10 min`, `29 d 3 h`."""
    seconds = max(0, round(time.total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s" if seconds else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def ago(since: datetime | None, at: datetime) -> str:
    """With a space in front; nothing where the moment is not known."""
    return "" if since is None else f" {lasted(at - since)} ago"


def moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def counted(n: int, thing: str) -> str:
    return f"{n} {thing}{'' if n == 1 else 's'}"


def named(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")


def because(reason: str) -> str:
    return f": {reason}" if reason else ""


def first_line(text: str) -> str:
    return text.strip().split("\n", 1)[0]


def gist(trace: str) -> str:
    """Of a traceback the line that names the error, of other text the first line."""
    lines = trace.strip().splitlines() or [""]
    places = [place for place, line in enumerate(lines) if _FRAME.match(line)]
    return lines[min(places[-1] + 1, len(lines) - 1) if places else 0].strip()
