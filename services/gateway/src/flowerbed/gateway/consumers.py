"""Keep a copy of every event of every service; the projections apply in the same transaction.

Four consumers fill the same tables. They take turns, so they cannot deadlock on each other's
rows, and positions become visible in their own order: `after=POSITION` never skips an event.
"""

from collections.abc import Sequence
from typing import Any

from flowerbed.contracts.catalogue import EVENTS, owned_events
from flowerbed.contracts.topology import STREAMS
from flowerbed.events.codec import Codec
from flowerbed.events.connection import Connection
from flowerbed.events.consumer import Consumer
from flowerbed.events.recorded import Recorded
from flowerbed.events.rest import Rest
from flowerbed.events.store import EventStore
from flowerbed.gateway.traces.specs import remember

codec = Codec(EVENTS)

REST = 0.25
"""Seconds. No round waits for what people are shown; who gives a command does not wait either."""

_TURNS = "SELECT pg_advisory_xact_lock(hashtext('flowerbed.gateway.keep'))"


async def take_turns(tx: Connection) -> None:
    await tx.execute(_TURNS)


def consumers(store: EventStore, rest: Rest) -> tuple[Consumer, ...]:
    async def keep(tx: Connection, recorded: Recorded[Any]) -> None:
        await store.record(tx, recorded)
        await remember(tx, recorded)

    async def keep_all(tx: Connection, recorded: Sequence[Recorded[Any]]) -> None:
        await store.record_all(tx, recorded)
        for one in recorded:
            await remember(tx, one)

    return tuple(
        Consumer(
            f"gateway-{stream.owner}",
            stream.name,
            dict.fromkeys(owned_events(stream.owner), keep),
            store.codec,
            begin=take_turns,
            rest=rest,
            handle_all=keep_all,
        )
        for stream in STREAMS
    )
