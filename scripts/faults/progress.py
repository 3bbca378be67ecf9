"""When did a federation move again? Read from the events' own times, after the fact.

A process counts as needed for an event if the event could not have been recorded without it:

    a service             any event that it owns
    postgres, supervisor  any event at all
    nats                  an event whose cause another service recorded after the kill
    s3                    a folded or read-back checkpoint
    caddy                 a report of any site
    agent, worker         a report of that site
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # has no stubs

from flowerbed.contracts.topology import STREAMS
from flowerbed.embedded.stack import Stack

OWNERS = tuple(stream.owner for stream in STREAMS)
AWAY = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)

_SINCE = """
SELECT id::text, type, data ->> 'exchange' AS exchange, data ->> 'client_id' AS client_id,
    meta ->> 'causation_id' AS cause, extract(epoch FROM recorded_at)::float8 AS at
FROM events WHERE meta ->> 'correlation_id' = $1 AND recorded_at > to_timestamp($2)
ORDER BY recorded_at
"""
_ROUNDS = """
SELECT (data ->> 'round_number')::int AS number,
    min(extract(epoch FROM recorded_at)::float8) FILTER (WHERE type = 'fl.round.started') AS began,
    max(extract(epoch FROM recorded_at)::float8) FILTER (WHERE type = 'fl.round.completed') AS ended
FROM events WHERE stream = $1 AND type IN ('fl.round.started', 'fl.round.completed')
GROUP BY 1 ORDER BY 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """An event after the kill. `at`: when it was recorded, in seconds since 1970."""

    owner: str
    id: str
    type: str
    exchange: str | None
    client_id: str | None
    cause: str | None
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    number: int
    began: float
    ended: float | None


Needs = Callable[[Moved, Sequence[Moved]], bool]


def needs(victim: str, client_id: str = "") -> Needs:
    """Tells the events that could not be there without `victim`."""
    name = victim.split("-")[0]
    if name in OWNERS:
        return lambda event, _: event.owner == name
    if name in ("postgres", "supervisor"):
        return lambda event, _: True
    if name == "nats":
        return _came_by_nats
    if name == "s3":
        return lambda event, _: event.exchange == "train" and event.type in (
            "fl.aggregate.completed", "fl.artifact.recorded",
        )  # fmt: skip
    if name == "caddy":
        return lambda event, _: event.type == "fl.update.submitted"
    if name in ("agent", "worker"):
        return lambda event, _: event.type == "fl.update.submitted" and event.client_id == client_id
    raise ValueError(f"nothing is known to need {victim!r}")


def first(events: Sequence[Moved], needed: Needs) -> float | None:
    """When the first of them was recorded."""
    return min((event.at for event in events if needed(event, events)), default=None)


async def events_since(stack: Stack, federation_id: str, since: float) -> list[Moved]:
    """Of every owner. Raises one of AWAY while Postgres is."""
    found: list[Moved] = []
    for owner in OWNERS:
        rows = await _fetch(stack, owner, _SINCE, federation_id, since)
        found += [Moved(owner=owner, **dict(row)) for row in rows]
    return found


async def rounds(stack: Stack, federation_id: str) -> list[Round]:
    rows = await _fetch(stack, "orchestrator", _ROUNDS, f"federation-{federation_id}")
    return [Round(**dict(row)) for row in rows]


async def copies(stack: Stack) -> int:
    """How many events the gateway has."""
    rows = await _fetch(stack, "gateway", "SELECT count(*) FROM events")
    return int(rows[0][0])


def _came_by_nats(event: Moved, events: Sequence[Moved]) -> bool:
    return any(other.id == event.cause and other.owner != event.owner for other in events)


async def _fetch(stack: Stack, service: str, query: str, *arguments: Any) -> list[Any]:
    connection = await asyncpg.connect(stack.postgres_dsn(service), timeout=3)
    try:
        return list(await connection.fetch(query, *arguments, timeout=3))
    finally:
        connection.terminate()
