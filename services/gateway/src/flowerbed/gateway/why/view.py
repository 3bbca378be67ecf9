"""The answer to "why is this run not moving?", as people and programs read it."""

from datetime import datetime
from typing import Literal

from flowerbed.gateway.views import Status, View


class Waits(View):
    """`code` is stable; `what` is for people and completes "it waits for …"."""

    code: str
    what: str


class WaitedFor(View):
    """One who must do something first. `label`: a client's dataset, or its tags before it joined.

    `doing`: what is known of it, e.g. that it was ordered training 12 s ago.
    """

    kind: Literal["client", "service", "person"]
    id: str
    label: str = ""
    doing: str
    since: datetime | None = None


class LastError(View):
    """`detail` is one line; `traceback` has all of them, where there are more."""

    at: datetime
    code: str
    detail: str
    traceback: str | None = None
    client_id: str | None = None
    label: str = ""
    where: str


class Why(View):
    """What a federation waits for, on whom, since when, until when, and what happens then.

    `is_overdue`: a service should have acted by now; `hints` says where to look.
    An ended federation waits for nobody: `waits` says how it ended.
    """

    federation_id: str
    status: Status
    waits: Waits
    on: list[WaitedFor] = []
    since: datetime | None = None
    until: datetime | None = None
    then: str = ""
    is_overdue: bool = False
    last_error: LastError | None = None
    hints: list[str] = []
