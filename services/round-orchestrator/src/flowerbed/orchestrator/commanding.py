"""Gives commands to a federation, with what the decider has to know: pool, base and time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flowerbed.contracts.values import ArtifactRef
from flowerbed.events import release
from flowerbed.events.commands import execute
from flowerbed.events.context import Context
from flowerbed.events.database import Connection, Database
from flowerbed.events.store import EventStore, Recorded
from flowerbed.orchestrator import membership, metrics
from flowerbed.orchestrator.commands import Command
from flowerbed.orchestrator.decider import federation
from flowerbed.orchestrator.state import Pool, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """`is_upgraded`: every replica knows the facts of this release, so they may be recorded:
    a member replaced, a policy changed, work owed from round to round.
    """

    base: ArtifactRef | None
    pool: Pool
    at: datetime
    is_upgraded: bool
    heard: datetime | None = None


@dataclass(frozen=True, slots=True)
class Federations:
    store: EventStore
    now: Callable[[], datetime]

    async def command(
        self,
        tx: Connection,
        federation_id: str,
        make: Callable[[Situation], Command],
        context: Context,
    ) -> list[Recorded[Any]]:
        """In the caller's transaction, alone with this federation until it ends."""
        return await self.commands(tx, federation_id, (make,), context)

    async def commands(
        self,
        tx: Connection,
        federation_id: str,
        makes: Sequence[Callable[[Situation], Command]],
        context: Context,
    ) -> list[Recorded[Any]]:
        """One after the other, all of them in the same situation."""
        await membership.lock(tx, federation_id)
        situation = Situation(
            base=await membership.base(tx, federation_id),
            pool=await membership.pool(tx, federation_id),
            at=self.now(),
            is_upgraded=await self.is_upgraded(tx),
            heard=await membership.heard(tx, federation_id),
        )
        stream = _stream(federation_id)
        recorded = []
        for make in makes:
            recorded += await execute(tx, self.store, federation, stream, make(situation), context)
        await metrics.count(tx, recorded)
        return recorded

    async def handle(
        self,
        database: Database,
        federation_id: str,
        make: Callable[[Situation], Command],
        context: Context,
    ) -> list[Recorded[Any]]:
        """In a transaction of its own; the lock makes a conflict impossible."""
        async with database.transaction(context.tenant) as tx:
            return await self.command(tx, federation_id, make, context)

    async def is_upgraded(self, tx: Connection) -> bool:
        return await release.reached(tx)

    async def state(self, tx: Connection, federation_id: str) -> State:
        history = await self.store.read(tx, _stream(federation_id))
        return federation.replay(recorded.event for recorded in history)


def _stream(federation_id: str) -> str:
    return f"federation-{federation_id}"
