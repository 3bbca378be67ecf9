"""What every exchange's worker is given."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from flowerbed.aggregator.screening import Limits
from flowerbed.aggregator.transport import Transport
from flowerbed.artifact.blobs import Blobs
from flowerbed.events.database import Database
from flowerbed.events.store import EventStore
from flowerbed.flower_apps.nursery import Start


def now() -> datetime:
    return datetime.now(UTC)


async def always(federation_id: str) -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridge:
    """`start_app`: a process in which a built-in app makes its base checkpoint.
    `bucket`: of what belongs to no federation.
    `has_heard_all`: whether every report of a federation made by now has reached us.
    `has_superlink`: federations may run over a SuperLink.
    `runs_simulations`: federations may have virtual clients here.
    `runs_pushed_apps`: an app that does not ship with us may make its base checkpoint here.
    """

    database: Database
    store: EventStore
    blobs: Blobs
    transport: Transport
    spool: Path
    start_app: Start
    bucket: str = "flowerbed"
    limits: Limits = field(default_factory=Limits)
    initialize_timeout: timedelta = timedelta(minutes=5)
    runs_pushed_apps: bool = True
    has_superlink: bool = False
    runs_simulations: bool = True
    has_heard_all: Callable[[str], Awaitable[bool]] = always
    clock: Callable[[], datetime] = now
    screening: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))
