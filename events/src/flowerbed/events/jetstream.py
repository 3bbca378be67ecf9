"""NATS JetStream behind one adapter: the only module that imports nats.

A connection that breaks is replaced by a new one, for ever; nothing is buffered across it.
Whoever was using the old one gets Unavailable and starts over: the relay by reading the
stream's tail again, a consumer by resetting its durable to the last acknowledged event.
"""

import asyncio
import json
import logging
import random
import re
import time
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar
from uuid import uuid4

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from flowerbed.contracts.topology import inbox_prefix
from flowerbed.events.declare import ensure_topology
from flowerbed.events.errors import Unavailable
from flowerbed.events.message import MARK, Mark, Message
from flowerbed.events.relay import Fenced, KnownMessage, Tail
from flowerbed.events.subscription import CLUSTER_EXPIRES, EXPIRES, Subscription
from flowerbed.events.wire import published, send

__all__ = ["Bus", "ensure_topology"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
Told: TypeAlias = Callable[[bytes], None]

PINGS: dict[str, Any] = {"ping_interval": 1, "max_outstanding_pings": 2}
"""A server that is stopped, or beyond a cut link, is left after some 3 s."""

READ_SECONDS = 2.0
"""A stream that is without a leader for a while answers nothing; so it is soon asked again."""

LOOK_SECONDS = 1.0

CONNECT_SECONDS = 3.0
"""nats-py itself would try a server that refuses for two minutes before it says so."""

_MARK_LINE = re.compile(rf"^{MARK}: (.+?)\r$", re.MULTILINE)

WRONG_LAST_SEQUENCE = (10071, 10070)
KNOWN_IN_BATCH = 10201
NO_MESSAGE = 10037

_AWAY = (
    OSError,
    nats.errors.TimeoutError,
    nats.errors.NoRespondersError,
    nats.errors.ConnectionClosedError,
    nats.errors.ConnectionDrainingError,
    nats.errors.ConnectionReconnectingError,
    nats.errors.OutboundBufferLimitError,
    nats.errors.FlushTimeoutError,
    nats.js.errors.ServiceUnavailableError,
    nats.js.errors.ServerError,
    nats.js.errors.NotFoundError,
    nats.js.errors.NoStreamResponseError,
    asyncio.TimeoutError,
)


@contextmanager
def translated() -> Iterator[None]:
    """Whatever says that NATS, or what we need of it, is away becomes Unavailable."""
    try:
        yield
    except _AWAY as error:
        raise Unavailable(f"nats did not answer: {type(error).__name__} {error}".strip()) from error


@dataclass(slots=True)
class Link:
    """One connection while it lasts; `closed` is set when it is over."""

    client: Client
    closed: "asyncio.Future[None]"
    js: JetStreamContext = field(init=False)

    def __post_init__(self) -> None:
        self.js = self.client.jetstream(timeout=5)

    async def end(self) -> None:
        """Wait until it is over. nats-py does not always say so: not when what it had still to
        send fails, for instance, so it is looked at as well."""
        while not self.closed.done() and not self.client.is_closed:
            await asyncio.wait((self.closed,), timeout=LOOK_SECONDS)

    async def ask(self, request: Coroutine[Any, Any, T]) -> T:
        """The answer to `request`, or Unavailable as soon as the connection is over."""
        asking = asyncio.ensure_future(request)
        try:
            await asyncio.wait((asking, self.closed), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise Unavailable("nats closed the connection")
            with translated():
                return asking.result()
        finally:
            asking.cancel()


def servers(url: str) -> list[str]:
    """The addresses in a list with commas."""
    return [one.strip() for one in url.split(",")]


class Bus:
    """A user's connection to NATS, kept up for ever between `start` and `close`.

    `url` may be several, with commas between: servers of one cluster, tried in turn.
    """

    def __init__(
        self,
        url: str,
        user: str,
        password: str,
        *,
        timeout: float = 5.0,
        expires: float | None = None,
    ) -> None:
        self._urls = servers(url)
        self._turn = random.randrange(len(self._urls))
        self._user = user
        self._password = password
        self._timeout = timeout
        self._expires = expires or (EXPIRES if len(self._urls) == 1 else CLUSTER_EXPIRES)
        self._link: Link | None = None
        self._up = asyncio.Event()
        self._away_since = time.monotonic()
        self._keeper: asyncio.Task[None] | None = None
        self._is_closing = False
        self._listeners: dict[str, Told] = {}
        self._nudges: set[asyncio.Future[None]] = set()

    def __repr__(self) -> str:
        return f"Bus({self._user}@{','.join(self._urls)})"

    @property
    def is_connected(self) -> bool:
        return self._link is not None and self._link.client.is_connected

    @property
    def away_seconds(self) -> float:
        """For how long there has been no connection."""
        return 0.0 if self._link is not None else time.monotonic() - self._away_since

    async def start(self) -> None:
        """Begin to connect; it does not wait for the connection."""
        if self._keeper is None:
            self._is_closing = False
            self._keeper = asyncio.create_task(self._keep(), name="nats")

    async def close(self) -> None:
        """End the connection, and connect no more."""
        if self._keeper is not None:
            # nats-py, or wait_for, may swallow a cancellation that comes while a client is closed.
            self._is_closing = True
            self._keeper.cancel()
            await asyncio.wait((self._keeper,))
            self._keeper = None

    async def wait_connected(self, timeout: float | None = None) -> None:
        """
        Raises:
            Unavailable: not connected within `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._up.wait()
        except TimeoutError as error:
            raise Unavailable(f"nats did not answer within {timeout} s") from error

    # --- publishing -------------------------------------------------------------------------

    async def tail(self, jetstream: str) -> Tail:
        ask = {"last_by_subj": ">"}
        found = await self.api(f"STREAM.MSG.GET.{jetstream}", ask, timeout=READ_SECONDS)
        if "error" not in found:
            headers = b64decode(found["message"].get("hdrs", "")).decode()
            mark = _MARK_LINE.search(headers)
            return Tail(int(found["message"]["seq"]), Mark.parse(mark[1]) if mark else None)
        if found["error"].get("err_code") != NO_MESSAGE:
            raise Unavailable(f"{jetstream}: {found['error'].get('description')}")
        info = await self.api(f"STREAM.INFO.{jetstream}", {}, timeout=READ_SECONDS)
        if "error" in info:
            raise Unavailable(f"{jetstream}: {info['error'].get('description')}")
        return Tail(int(info["state"]["last_seq"]), None)

    async def publish(self, message: Message, expected: int | None = None) -> int:
        """One acknowledged publish; its sequence, or `expected` if the stream had it already."""
        headers = dict(message.headers)
        if expected is not None:
            headers["Nats-Expected-Last-Sequence"] = str(expected)
        acked = await self._request(message, headers)
        if acked.get("duplicate") and expected is not None:
            return expected
        return int(acked["seq"])

    async def publish_batch(self, messages: Sequence[Message], expected: int) -> int:
        """All or none, with one acknowledgement; the last message's sequence."""
        link = self._connected()
        batch, last = uuid4().hex, len(messages)
        frames = [
            published(message, f"Nats-Batch-Id: {batch}\r\nNats-Batch-Sequence: {place}\r\n")
            for place, message in enumerate(messages[1:-1], start=2)
        ]
        more = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": "1"}
        more["Nats-Expected-Last-Sequence"] = str(expected)
        if last > 1:
            first = messages[0]
            with translated():
                headers = {**first.headers, **more}
                await link.client.publish(first.subject, first.data, headers=headers)
                await send(link.client, b"".join(frames))
            more = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(last)}
        headers = {**messages[-1].headers, **more, "Nats-Batch-Commit": "1"}
        return int((await self._request(messages[-1], headers))["seq"])

    async def _request(self, message: Message, headers: dict[str, str]) -> dict[str, Any]:
        link = self._connected()
        answer = await link.ask(
            link.client.request(
                message.subject, message.data, timeout=self._timeout, headers=headers
            )
        )
        acked: dict[str, Any] = json.loads(answer.data)
        error = acked.get("error")
        if error is None:
            return acked
        if error.get("err_code") in WRONG_LAST_SEQUENCE:
            raise Fenced(str(error.get("description")))
        if error.get("err_code") == KNOWN_IN_BATCH:
            raise KnownMessage(str(error.get("description")))
        raise Unavailable(f"jetstream refused a message: {error.get('description')}")

    # --- consuming --------------------------------------------------------------------------

    @asynccontextmanager
    async def subscription(self, jetstream: str, durable: str) -> AsyncIterator[Subscription]:
        """Everything not acknowledged, from the oldest, in order and without a gap."""
        link = self._connected()
        subscription = Subscription(
            jetstream, durable, link.client, link.closed, expires=self._expires
        )
        await self._until_alone(link, jetstream, durable)
        # Without this, what an earlier session left unacknowledged would come after newer events.
        await link.ask(link.js.reset_consumer(jetstream, durable, timeout=READ_SECONDS))
        with translated():
            await subscription.open()
        try:
            yield subscription
        finally:
            with suppress(Unavailable), translated():
                await subscription.close()

    async def _until_alone(self, link: Link, jetstream: str, durable: str) -> None:
        """What a stopped process asked for still stands for a while, and would take events."""
        patience = asyncio.get_running_loop().time() + self._expires + 1
        while asyncio.get_running_loop().time() < patience:
            info = await link.ask(link.js.consumer_info(jetstream, durable, timeout=READ_SECONDS))
            if not info.num_waiting:
                return
            await asyncio.sleep(0.2)

    async def pending(self, jetstream: str, durable: str) -> int:
        """How many events a durable has still to acknowledge."""
        link = self._connected()
        info = await link.ask(link.js.consumer_info(jetstream, durable, timeout=READ_SECONDS))
        return (info.num_pending or 0) + (info.num_ack_pending or 0)

    # --- waking -----------------------------------------------------------------------------

    def nudge(self, subject: str, what: bytes = b"") -> None:
        """Tell whoever listens on `subject`; nobody is told when NATS is away."""
        link = self._link
        if link is not None:
            task = asyncio.ensure_future(_quietly(link.client.publish(subject, what)))
            self._nudges.add(task)
            task.add_done_callback(self._nudges.discard)

    async def listen(self, subject: str, told: Told) -> None:
        """Call `told` at every nudge on `subject`, on this connection and those to come."""
        self._listeners[subject] = told
        if self._link is not None:
            await _quietly(_subscribe(self._link.client, subject, told))

    # --- the connection ---------------------------------------------------------------------

    def _connected(self) -> Link:
        if self._link is None:
            raise Unavailable("nats is away")
        return self._link

    async def api(
        self, operation: str, request: dict[str, Any], *, timeout: float | None = None
    ) -> dict[str, Any]:
        """A request to JetStream itself; the answer may hold an `error`."""
        link = self._connected()
        subject, data = f"$JS.API.{operation}", json.dumps(request).encode()
        answer = await link.ask(
            link.client.request(subject, data, timeout=timeout or self._timeout)
        )
        found: dict[str, Any] = json.loads(answer.data)
        return found

    async def _keep(self) -> None:
        wait = 0.1
        while not self._is_closing:
            try:
                link = await self._connect()
            except (*_AWAY, nats.errors.Error) as error:
                level = logging.WARNING if wait == 0.1 else logging.DEBUG
                logger.log(level, "nats does not answer: %s", error or type(error).__name__)
                await asyncio.sleep(wait)
                wait = min(wait * 2, 1.0)
                continue
            wait = 0.1
            self._link = link
            self._up.set()
            try:
                await link.end()
                logger.warning("nats closed the connection")
            finally:
                self._up.clear()
                self._away_since = time.monotonic()
                self._link = None
                if not link.closed.done():
                    link.closed.set_result(None)
                await _quietly(asyncio.wait_for(link.client.close(), CONNECT_SECONDS))

    async def _connect(self) -> Link:
        client = Client()
        closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def on_closed() -> None:
            if not closed.done():
                closed.set_result(None)

        self._turn = (self._turn + 1) % len(self._urls)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await client.connect(
                    self._urls[self._turn],
                    user=self._user,
                    password=self._password,
                    name=self._user,
                    inbox_prefix=inbox_prefix(self._user),
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=2,
                    no_echo=True,
                    **PINGS,
                    error_cb=_log_error,
                    closed_cb=on_closed,
                )
                for subject, told in self._listeners.items():
                    await _subscribe(client, subject, told)
        except BaseException:
            await _quietly(client.close())
            raise
        return Link(client, closed)


async def _subscribe(client: Client, subject: str, told: Told) -> None:
    async def on_message(message: Msg) -> None:
        told(message.data)

    await client.subscribe(subject, cb=on_message)


async def _quietly(request: Awaitable[Any]) -> None:
    with suppress(*_AWAY, nats.errors.Error):
        await request


async def _log_error(error: Exception) -> None:
    logger.debug("nats: %r", error)
