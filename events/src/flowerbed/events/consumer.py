"""A consumer: which events of another service matter, and one function for each."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

from flowerbed.contracts.event import Event
from flowerbed.contracts.trace import scope_of
from flowerbed.events.codec import Codec
from flowerbed.events.connection import Connection
from flowerbed.events.message import Envelope, Message, envelope, received
from flowerbed.events.recorded import Recorded
from flowerbed.events.rest import Rest
from flowerbed.events.telemetry import SpanKind, span

Handler: TypeAlias = Callable[[Connection, Recorded[Any]], Awaitable[None]]
HandleAll: TypeAlias = Callable[[Connection, Sequence[Recorded[Any]]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often, and how long apart, a failing event is tried before it is a dead letter."""

    attempts: int = 5
    first: float = 0.1
    factor: float = 3.0

    def delay(self, attempt: int) -> float:
        """How long to wait after failed attempt number `attempt`, from 1."""
        return float(self.first * self.factor ** (attempt - 1))


@dataclass(frozen=True)
class Consumer:
    """`name` is unique in the service; `stream` is the JetStream stream, such as FL_LEASE.

    A handler runs in the transaction that also moves the cursor. It uses `execute(tx, …)`,
    never `handle(database, …)`, or its events would commit apart from the cursor.
    """

    name: str
    stream: str
    handlers: Mapping[type[Event], Handler]
    codec: Codec
    retry: Retry = field(default_factory=Retry)
    begin: Callable[[Connection], Awaitable[None]] | None = None
    """Done once in each transaction, before any message in it is handled."""
    rest: Rest | None = None
    """Taken after each batch: fewer, larger transactions, where nobody waits for their effect."""
    handle_all: HandleAll | None = None
    """Takes all that arrived for one tenant at once, in order, instead of a call for each: where
    that needs fewer statements. `handlers` still say which types matter, and handle replays."""

    async def handle_batch(self, tx: Connection, batch: Iterable[tuple[Message, Envelope]]) -> None:
        """Decode and hand over to `handle_all`; types without a handler are passed over."""
        assert self.handle_all is not None
        recorded = [
            received(message, self.codec, read)
            for message, read in batch
            if self.handler(read.type) is not None
        ]
        if recorded:
            await self.handle_all(tx, recorded)

    async def handle(self, tx: Connection, message: Message, read: Envelope | None = None) -> None:
        """Decode and handle one message; a type without a handler is passed over. `read`: its
        envelope, where that is known already."""
        read = read or envelope(message)
        handler = self.handler(read.type)
        if handler is None:
            return
        recorded = received(message, self.codec, read)
        with span(
            f"consume {read.type}",
            recorded.context,
            kind=SpanKind.CONSUMER,
            under=scope_of(recorded.event),
            consumer=self.name,
            stream=read.stream,
            about=recorded.event,
        ):
            await handler(tx, recorded)

    def handler(self, event_type: str) -> Handler | None:
        return self._by_type.get(event_type)

    @cached_property
    def _by_type(self) -> dict[str, Handler]:
        return {cls.type: handler for cls, handler in self.handlers.items()}
