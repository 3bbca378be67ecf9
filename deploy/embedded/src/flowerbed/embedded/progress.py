"""What `up` hears from the supervisor while it starts: JSON lines through a pipe."""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

Step = Literal["starting", "ready", "failed", "done", "taken"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A component's step. `done`: all are ready. `taken`: another supervisor holds the stack."""

    component: str
    step: Step
    seconds: float = 0.0
    reason: str = ""
    log_tail: str = ""


class ProgressPipe:
    """The supervisor's end. That `up` goes away meanwhile is no reason to stop."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        if descriptor is not None:
            os.set_inheritable(descriptor, False)

    def send(self, progress: Progress) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.write(self._descriptor, json.dumps(asdict(progress)).encode() + b"\n")

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def received(descriptor: int) -> Iterator[Progress]:
    """Until the supervisor closes its end."""
    with os.fdopen(descriptor, "rb") as lines:
        for line in lines:
            yield Progress(**json.loads(line))
