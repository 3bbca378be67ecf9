"""Run a command: read, decide, append. The only place where the three meet."""

from collections.abc import Sequence
from typing import TypeVar

from flowerbed.contracts.event import Event
from flowerbed.events.connection import Connection
from flowerbed.events.context import Context
from flowerbed.events.database import Database
from flowerbed.events.decider import C, Decider, S
from flowerbed.events.errors import Conflict
from flowerbed.events.recorded import Recorded
from flowerbed.events.store import EventStore
from flowerbed.events.telemetry import span

ATTEMPTS = 5

E = TypeVar("E", bound=Event)


async def execute(
    tx: Connection,
    store: EventStore,
    decider: Decider[S, C, E],
    stream: str,
    command: C,
    context: Context,
) -> list[Recorded[E]]:
    """In the caller's transaction: a consumer's cursor and these events commit together."""
    with span(f"command {type(command).__name__}", context, stream=stream):
        history: Sequence[Recorded[E]] = await store.read(tx, stream)
        state = decider.replay(recorded.event for recorded in history)
        events = decider.decide(state, command)
        return await store.append(tx, stream, events, expected=len(history), context=context)


async def handle(
    database: Database,
    store: EventStore,
    decider: Decider[S, C, E],
    stream: str,
    command: C,
    context: Context,
) -> list[Recorded[E]]:
    """In a transaction of its own, tried again when someone else wrote first: for HTTP routes."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            async with database.transaction(context.tenant) as tx:
                return await execute(tx, store, decider, stream, command, context)
        except Conflict:
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("unreachable")
