"""Looks at a federation when its deadline has passed. Late or early, it is never wrong."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

from flowerbed.events.context import Context
from flowerbed.events.database import Database
from flowerbed.orchestrator.commanding import Federations, Situation
from flowerbed.orchestrator.commands import CheckDeadline, Command
from flowerbed.orchestrator.projections import deadlines

LONGEST_SLEEP = timedelta(seconds=5)
"""A deadline set by another replica is seen this late at the most."""


def _check(now: Situation) -> Command:
    return CheckDeadline(pool=now.pool, at=now.at, heard=now.heard)


async def sweep(database: Database, federations: Federations, now: Callable[[], datetime]) -> None:
    """For ever: sleep until the next deadline, then give the command to whom it concerns."""
    while True:
        async with database.read_all() as reader:
            overdue = await deadlines.due(reader, now())
        for one in overdue:
            context = Context(tenant=one.tenant, correlation_id=one.federation_id)
            await federations.handle(database, one.federation_id, _check, context)
        async with database.read_all() as reader:
            next_at = await deadlines.next_due_at(reader)
        wait = LONGEST_SLEEP if next_at is None else min(LONGEST_SLEEP, next_at - now())
        await asyncio.sleep(max(wait.total_seconds(), 1.0))
