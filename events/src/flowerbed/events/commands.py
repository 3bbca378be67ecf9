"""Run a command: read, decide, append. The only place where the three meet."""

from collections.abc import Sequence
from functools import partial, reduce
from typing import TypeVar

from flowerbed.contracts.event import Event
from flowerbed.events.connection import Connection
from flowerbed.events.context import Context
from flowerbed.events.database import Database, after_commit, known_states
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
    with span(f"command {type(command).__name__}", context, about=command, stream=stream):
        states, key = known_states(), (id(decider), context.tenant, stream)
        version, state = states.find(key) or (0, decider.initial)
        history: Sequence[Recorded[E]] = await store.read(tx, stream, after=version)
        version += len(history)
        state = reduce(decider.evolve, (recorded.event for recorded in history), state)
        events = decider.decide(state, command)
        try:
            recorded = await store.append(tx, stream, events, expected=version, context=context)
        except Conflict:
            states.forget(key)
            raise
        state = reduce(decider.evolve, events, state)
        after_commit(partial(states.keep, key, version + len(events), state))
        return recorded


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
