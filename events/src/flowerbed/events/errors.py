"""Errors of the event library, and what a caller may do about each.

FlowerbedError
├── Rejected            the command breaks a rule; the caller must change it (409)
├── NotFound            nothing is stored under that name (404)
├── Conflict            someone wrote first; load again and retry (409, retried)
├── Unavailable         Postgres or NATS is away; retry later (503)
│   └── RoleLost        another replica leads now; what was begun as the leader is undone
└── UnknownEvent        a payload that this version of the code cannot read (500)
"""

from collections.abc import Sequence
from typing import Any, ClassVar


class FlowerbedError(Exception):
    """Base of every error this project raises on purpose."""


class Rejected(FlowerbedError):
    """A decider said no. `code` is stable and may be shown to a client.

    `errors` may list every broken rule, each with its path, the value, and what is allowed.
    """

    code: ClassVar[str] = "rejected"
    status: ClassVar[int] = 409

    def __init__(self, message: str, *, errors: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(message)
        self.errors = tuple(errors)


class NotFound(FlowerbedError):
    """Nothing is stored under that name."""


class Conflict(FlowerbedError):
    """The stream moved on between the read and the write."""

    def __init__(self, stream: str, expected: int) -> None:
        super().__init__(f"stream {stream!r} has moved past version {expected}")
        self.stream = stream
        self.expected = expected


class Unavailable(FlowerbedError):
    """A dependency did not answer; the same call may work later."""


class RoleLost(Unavailable):
    """Another replica leads now, or may; nothing may be changed in this role any more."""


class UnknownEvent(FlowerbedError):
    """The type or its schema version is not known to this codec."""
