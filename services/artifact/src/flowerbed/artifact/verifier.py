"""Reads back what the bridge stored, and records it if it is what it is said to be.

The reading happens outside any transaction. What is to do lies in the database, so a restart
goes on where it was; doing it twice records it once.
"""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from flowerbed.artifact import metrics
from flowerbed.artifact.blobs import Blobs, DigestDiffers
from flowerbed.artifact.decider import RecordArtifact, lineage, stream_of
from flowerbed.artifact.projections import verifications
from flowerbed.artifact.projections.verifications import Verification
from flowerbed.contracts.aggregate import AggregateCompleted
from flowerbed.contracts.topology import PARTITIONS, partition
from flowerbed.contracts.trace import scope_of
from flowerbed.contracts.values import ArtifactKind, ArtifactRef
from flowerbed.events.commands import execute
from flowerbed.events.database import Database
from flowerbed.events.errors import Conflict, NotFound, Rejected, Unavailable
from flowerbed.events.store import EventStore
from flowerbed.events.telemetry import span
from flowerbed.events.wakeup import Wakeup

logger = logging.getLogger(__name__)

AT_ONCE = 4
LOOK_SECONDS = 5.0
FIRST_WAIT, LAST_WAIT = 0.2, 10.0


@dataclass(slots=True)
class Verifier:
    """`look_seconds`: how often to look for what another replica's consumer was told."""

    database: Database
    store: EventStore
    blobs: Blobs
    missing_attempts: int = 5
    look_seconds: float = LOOK_SECONDS
    _wakeups: dict[int, Wakeup] = field(
        default_factory=lambda: {number: Wakeup() for number in range(PARTITIONS)}
    )

    def wake(self, federation_id: str) -> None:
        """There may be something to read back."""
        self._wakeups[partition(federation_id)].wake()

    async def run(self, number: int) -> None:
        """One partition, until cancelled. Only one replica does this at a time."""
        wait = FIRST_WAIT
        while True:
            try:
                todo = await self._to_do(number)
                done = await asyncio.gather(*(self._in_order(each) for each in todo))
            except Unavailable as error:
                logger.warning("verification waits: %s", error)
                done = [False]
            if all(done):
                wait = FIRST_WAIT
                if sum(len(each) for each in todo) < AT_ONCE:
                    await self._wakeups[number].wait(self.look_seconds)
            else:
                await asyncio.sleep(wait)
                wait = min(wait * 2, LAST_WAIT)

    async def _to_do(self, number: int) -> list[list[Verification]]:
        """The oldest, by federation."""
        found = await verifications.to_do(self.database)
        ours = (one for one in found if partition(one.completed.federation_id) == number)
        by_federation: dict[str, list[Verification]] = {}
        for one in islice(ours, AT_ONCE):
            by_federation.setdefault(one.completed.federation_id, []).append(one)
        return list(by_federation.values())

    async def _in_order(self, todo: list[Verification]) -> bool:
        """A parent is recorded before what was made of it."""
        return all([await self._verify(one) for one in todo])

    async def _verify(self, one: Verification) -> bool:
        """True once it is settled: recorded, or refused for good."""
        try:
            number = one.completed.round_number
            under = scope_of(one.completed)
            with span("verify artifact", one.context, under=under, round_num=number):
                claims = [claimed for _, claimed in _claims(one.completed)]
                if one.completed.moments is not None:
                    claims.append(one.completed.moments)  # its state names it
                reading = (asyncio.to_thread(self.blobs.digest, claimed.uri) for claimed in claims)
                for claimed, found in zip(claims, await asyncio.gather(*reading), strict=True):
                    _compare(claimed, found)
                await self._record(one)
        except NotFound as error:
            return await self._missing(one, error)
        except (Unavailable, Conflict) as error:
            logger.warning("verification of %s waits: %s", one.event_id, error)
            return False
        except Rejected as error:
            await self._refuse(one, error)
        return True

    async def _record(self, one: Verification) -> None:
        stream = stream_of(one.completed.federation_id)
        n_recorded: list[ArtifactKind] = []
        recorded_at = one.heard_at
        async with self.database.transaction(one.context.tenant) as tx:
            for kind, claimed in _claims(one.completed):
                command = _command(one.completed, kind, claimed)
                recorded = await execute(tx, self.store, lineage, stream, command, one.context)
                n_recorded += [kind] * len(recorded)
                recorded_at = max((recorded_at, *(each.recorded_at for each in recorded)))
            await verifications.forget(tx, one.event_id)
        for kind in n_recorded:
            metrics.artifacts_written.labels(kind).inc()
            metrics.availability.observe((recorded_at - one.heard_at).total_seconds())

    async def _missing(self, one: Verification, error: NotFound) -> bool:
        if one.n_missing + 1 >= self.missing_attempts:
            await self._refuse(one, error)
            return True
        async with self.database.transaction(one.context.tenant) as tx:
            await verifications.count_missing(tx, one.event_id)
        return False

    async def _refuse(self, one: Verification, error: Exception) -> None:
        async with self.database.transaction(one.context.tenant) as tx:
            await verifications.refuse(tx, one.event_id, str(error))
        metrics.artifacts_refused.inc()
        logger.error(
            "an artifact is not recorded: %s",
            error,
            extra={"federation_id": one.completed.federation_id, "tenant": one.context.tenant},
        )


def _claims(completed: AggregateCompleted) -> Iterator[tuple[ArtifactKind, ArtifactRef]]:
    if completed.checkpoint is not None:
        yield ("base" if completed.exchange == "initialize" else "checkpoint"), completed.checkpoint
    if completed.state is not None:
        yield "state", completed.state


def _compare(claimed: ArtifactRef, found: ArtifactRef) -> None:
    if found != claimed:
        raise DigestDiffers(
            f"{claimed.uri} has sha256 {found.sha256} and {found.size} bytes,"
            f" not {claimed.sha256} and {claimed.size}"
        )


def _command(
    completed: AggregateCompleted, kind: ArtifactKind, artifact: ArtifactRef
) -> RecordArtifact:
    return RecordArtifact(
        federation_id=completed.federation_id,
        round_number=completed.round_number,
        attempt=completed.attempt,
        exchange=completed.exchange,
        kind=kind,
        artifact=artifact,
        parents=completed.parents,
        n_updates=len(completed.updates),
        metrics=completed.metrics if kind == "checkpoint" else {},
        owing=completed.owing if kind == "checkpoint" else (),
    )
