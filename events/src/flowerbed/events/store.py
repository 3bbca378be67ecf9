"""The event store: every stream of a service, in one table of its Postgres database.

    read(tx, stream)  ->  decide  ->  append(tx, stream, events, expected=version read)

The table is also the outbox: the relay tails it (`relay.py`), so nothing else is written
when an event is recorded.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

from asyncpg import UniqueViolationError  # type: ignore[import-untyped]  # has no stubs

from flowerbed.contracts.event import Event, subject
from flowerbed.events import failpoints
from flowerbed.events.codec import Codec
from flowerbed.events.connection import Connection, Row
from flowerbed.events.context import NO_FEDERATION, Context
from flowerbed.events.database import mark_appended
from flowerbed.events.errors import Conflict, FlowerbedError
from flowerbed.events.projection import Projection
from flowerbed.events.recorded import Recorded
from flowerbed.events.telemetry import traceparent_of

__all__ = ["EventStore", "Recorded"]

COLUMNS = "gpos, stream, version, id, type, schema_version, tenant, data, meta, recorded_at"

LARGEST_PAYLOAD = 768 * 1024
"""NATS refuses messages above 1 MiB, headers included, and the relay would stand still."""

_APPEND = """
INSERT INTO events (stream, version, id, type, schema_version, tenant, data, meta)
SELECT $1, $2 + e.place, e.id, e.type, e.schema_version, $3, e.data, $4
FROM unnest($5::uuid[], $6::text[], $7::int[], $8::json[]) WITH ORDINALITY
    AS e (id, type, schema_version, data, place)
WHERE (SELECT coalesce(max(version), 0) FROM events WHERE stream = $1) = $2
ORDER BY e.place
RETURNING gpos, version, recorded_at
"""

_RECORD = """
INSERT INTO events
    (stream, version, id, type, schema_version, tenant, data, meta, recorded_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (stream, version) DO NOTHING
RETURNING gpos
"""


_RECORD_ALL = """
INSERT INTO events
    (stream, version, id, type, schema_version, tenant, data, meta, recorded_at)
SELECT e.stream, e.version, e.id, e.type, e.schema_version, $1, e.data, e.meta, e.recorded_at
FROM unnest($2::text[], $3::int[], $4::uuid[], $5::text[], $6::int[], $7::json[], $8::json[],
    $9::timestamptz[]) WITH ORDINALITY
    AS e (stream, version, id, type, schema_version, data, meta, recorded_at, place)
ORDER BY e.place
ON CONFLICT (stream, version) DO NOTHING
RETURNING stream, version
"""


class EventStore:
    def __init__(self, codec: Codec, projections: Sequence[Projection] = ()) -> None:
        self.codec = codec
        self.projections = tuple(projections)

    async def read(self, tx: Connection, stream: str, *, after: int = 0) -> list[Recorded[Any]]:
        """The stream's events past version `after`, oldest first; none if there is no stream."""
        rows = await tx.fetch(
            f"SELECT {COLUMNS} FROM events WHERE stream = $1 AND version > $2 ORDER BY version",
            stream,
            after,
        )
        return [self.recorded(row) for row in rows]

    async def append(
        self,
        tx: Connection,
        stream: str,
        events: Sequence[Event],
        *,
        expected: int,
        context: Context,
    ) -> list[Recorded[Any]]:
        """Record `events` behind version `expected` and apply the projections.

        Raises:
            Conflict: the stream is not at version `expected`.
            ValueError: tenant or correlation_id cannot be part of a subject.
        """
        if not events:
            return []
        subject("fl", context.tenant, context.correlation_id)  # or the relay could not publish it
        encoded = [self._encoded(event) for event in events]
        ids = [uuid4() for _ in events]
        meta = meta_of(context)
        types, schemas, payloads = zip(*encoded, strict=True)
        try:
            rows = await tx.fetch(
                _APPEND, stream, expected, context.tenant, meta,
                ids, types, schemas, [payload.decode() for payload in payloads],
            )  # fmt: skip
        except UniqueViolationError as error:
            raise Conflict(stream, expected) from error
        if not rows:
            raise Conflict(stream, expected)
        mark_appended()
        stored = replace(context, traceparent=traceparent_of(context))
        recorded = [
            Recorded(
                position=row["gpos"], stream=stream, version=row["version"], id=event_id,
                type=event.type, schema_version=event.schema_version, event=event,
                context=stored, recorded_at=row["recorded_at"],
            )
            for row, event_id, event in zip(rows, ids, events, strict=True)
        ]  # fmt: skip
        for one in recorded:
            await self.project(tx, one)
        failpoints.reach_commit(types)
        return recorded

    async def record(self, tx: Connection, received: Recorded[Any]) -> bool:
        """Keep a copy of another service's event at its own place; False if already there.

        Raises:
            FlowerbedError: another event is stored at that place.
        """
        event_type, schema_version, data = self.codec.encode(received.event)
        position = await tx.fetchval(
            _RECORD, received.stream, received.version, received.id, event_type, schema_version,
            received.context.tenant, data.decode(), meta_of(received.context),
            received.recorded_at,
        )  # fmt: skip
        if position is None:
            await self._same_event(tx, received)
            return False
        mark_appended()
        await self.project(tx, received)
        return True

    async def record_all(self, tx: Connection, received: Sequence[Recorded[Any]]) -> None:
        """Keep copies of another service's events of one tenant, as `record` each of them.

        Raises:
            FlowerbedError: another event is stored at the place of one.
        """
        encoded = [self.codec.encode(one.event) for one in received]
        rows = await tx.fetch(
            _RECORD_ALL,
            received[0].context.tenant,
            [one.stream for one in received],
            [one.version for one in received],
            [one.id for one in received],
            [event_type for event_type, _, _ in encoded],
            [schema_version for _, schema_version, _ in encoded],
            [data.decode() for _, _, data in encoded],
            [meta_of(one.context) for one in received],
            [one.recorded_at for one in received],
        )
        new = {(row["stream"], row["version"]) for row in rows}
        if new:
            mark_appended()
        for one in received:
            if (one.stream, one.version) in new:
                await self.project(tx, one)
            else:
                await self._same_event(tx, one)

    async def project(self, tx: Connection, recorded: Recorded[Any]) -> None:
        for projection in self.projections:
            await projection.apply(tx, recorded)

    def recorded(self, row: Row) -> Recorded[Any]:
        """An event from a row that has `COLUMNS`."""
        return Recorded(
            position=row["gpos"],
            stream=row["stream"],
            version=row["version"],
            id=row["id"],
            type=row["type"],
            schema_version=row["schema_version"],
            event=self.codec.decode(row["type"], row["schema_version"], row["data"]),
            context=context_of(row["tenant"], row["meta"]),
            recorded_at=row["recorded_at"],
        )

    def _encoded(self, event: Event) -> tuple[str, int, bytes]:
        event_type, schema_version, payload = self.codec.encode(event)
        if len(payload) > LARGEST_PAYLOAD:
            raise FlowerbedError(
                f"{event_type} has {len(payload)} bytes, a message carries at most"
                f" {LARGEST_PAYLOAD}"
            )
        return event_type, schema_version, payload

    async def _same_event(self, tx: Connection, received: Recorded[Any]) -> None:
        there = await tx.fetchval(
            "SELECT id FROM events WHERE stream = $1 AND version = $2",
            received.stream,
            received.version,
        )
        if there != received.id:
            raise FlowerbedError(
                f"stream {received.stream!r} version {received.version} already holds event"
                f" {there}, not {received.id}"
            )


def meta_of(context: Context) -> str:
    """The context as stored."""
    meta = {
        "correlation_id": context.correlation_id,
        "causation_id": context.causation_id,
        "traceparent": traceparent_of(context),
        "actor": context.actor,
    }
    return json.dumps({key: value for key, value in meta.items() if value is not None})


def context_of(tenant: str, meta: str) -> Context:
    stored = json.loads(meta)
    return Context(
        tenant=tenant,
        correlation_id=stored.get("correlation_id", NO_FEDERATION),
        causation_id=stored.get("causation_id"),
        traceparent=stored.get("traceparent"),
        actor=stored.get("actor"),
    )
