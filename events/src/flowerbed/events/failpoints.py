"""Failpoints: end or stop this process at a named moment, for tests of crashes and of waiting.

FLOWERBED_FAILPOINTS names a file. Without the variable nothing is looked at. The file is there
while a point is armed: {"service", "point", "event_type", "id"}. The process that reaches the
point first removes the file, so it fires once, and kills itself; with {"signal": "SIGSTOP"} it
stands still until somebody sends it SIGCONT.
"""

import json
import os
import signal
from collections.abc import Iterable
from functools import cache, partial
from pathlib import Path
from typing import Literal, TypeAlias

from flowerbed.events.database import after_commit
from flowerbed.events.settings import SETTINGS_FILE

VARIABLE = "FLOWERBED_FAILPOINTS"

Point: TypeAlias = Literal[
    "commit-before", "commit-after",
    "publish-before", "publish-after",
    "consume-before", "consume-after",
]  # fmt: skip

_file = os.environ.get(VARIABLE)


def reach(point: Point, *event_types: str) -> None:
    """Say that these events are at `point`; does not return if that is what was armed."""
    if _file is None:
        return
    try:
        armed = json.loads(Path(_file).read_text())
    except FileNotFoundError:
        return
    if armed["service"] != _service() or armed["point"] != point:
        return
    if armed["event_type"] in event_types:
        _fire(Path(_file), signal.Signals[armed.get("signal", "SIGKILL")])


def reach_commit(event_types: Iterable[str]) -> None:
    """In the transaction that has recorded these events: before its commit, and after it."""
    if _file is None:
        return
    types = tuple(event_types)
    reach("commit-before", *types)
    after_commit(partial(reach, "commit-after", *types))


def _fire(file: Path, number: signal.Signals) -> None:
    try:
        file.unlink()
    except FileNotFoundError:
        return  # another replica was first
    os.kill(os.getpid(), number)


@cache
def _service() -> str:
    """Whose process this is, as its settings file says."""
    settings = os.environ.get(SETTINGS_FILE)
    return str(json.loads(Path(settings).read_text())["service"]) if settings else ""
