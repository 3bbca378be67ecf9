"""A SuperNode's way out: HTTPS on the loopback interface in, the control plane's mTLS out.

A stock SuperNode has no client certificate; the agent has. It lets through what a SuperNode asks
for, and of bundles only the one that the lease's signed manifest stands for: whoever may order
work cannot have other code run here. What went by also tells when the SuperNode was without work.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import TypeAlias

import h11
import httpx

from flowerbed.contracts.values import Sha256
from flowerbed.runner.errors import NotReachable

logger = logging.getLogger(__name__)

PREFIX = "/v1/fleet/"
ROUTES = frozenset(
    {"activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "push-messages",
     "get-run", "get-fab", "push-object", "pull-object", "confirm-message-received"}
)  # fmt: skip
LARGEST_BODY = 64 * 1024 * 1024
PIECE = 1 << 16
_NOT_HANDED_ON = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "keep-alive",
     "server", "date", "content-encoding"}
)  # fmt: skip

Headers: TypeAlias = dict[str, str]
HandOn: TypeAlias = Callable[[str, Headers, bytes], Awaitable[httpx.Response]]
"""Sends what was asked for to the control plane: path, headers, body."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Headers = field(default_factory=dict)
    content: bytes = b""


class Tunnel:
    def __init__(self, hand_on: HandOn, fab_sha256: Sha256) -> None:
        self._hand_on = hand_on
        self._fab_sha256 = fab_sha256
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._asked_in_vain_at: float | None = None
        self.refused: str | None = None
        """Why a bundle was kept from the SuperNode, if one was."""

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def idle_seconds(self) -> float | None:
        """How long ago the SuperNode asked for a message and was given none: it had no work then,
        and none that was sent to it before can still be on its way."""
        at = self._asked_in_vain_at
        return None if at is None else time.monotonic() - at

    async def open(self, context: SSLContext) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=context)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, h11.ProtocolError) as error:
            logger.debug("a SuperNode's connection ended: %s", error)
        except asyncio.CancelledError:
            pass
        finally:
            self._connections.discard(task)
            writer.close()
            with suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request after the other, until the SuperNode goes away."""
        connection = h11.Connection(h11.SERVER)
        while (asked := await _request(connection, reader)) is not None:
            request, body = asked
            answer = await self._answer(request, body)
            headers = [*answer.headers.items(), ("content-length", str(len(answer.content)))]
            head = h11.Response(status_code=answer.status, headers=headers)
            for event in (head, h11.Data(data=answer.content), h11.EndOfMessage()):
                writer.write(connection.send(event) or b"")
            await writer.drain()
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return
            connection.start_next_cycle()

    async def _answer(self, request: h11.Request, body: bytes | None) -> Answer:
        path = request.target.decode("ascii", "replace")
        route = path.removeprefix(PREFIX)
        if request.method != b"POST" or not path.startswith(PREFIX) or route not in ROUTES:
            return Answer(404)
        if body is None:
            return Answer(413)
        headers = {name.decode(): value.decode("latin-1") for name, value in request.headers}
        asked_at = time.monotonic()
        try:
            given = await self._hand_on(path, _kept(headers), body)
        except NotReachable as error:
            logger.debug("%s: %s", route, error)
            return Answer(503)
        if given.status_code == 200 and route == "get-fab" and not self._may_run(given.content):
            return Answer(403)
        if given.status_code == 200 and route == "pull-messages" and not given.content:
            self._asked_in_vain_at = asked_at
        return Answer(given.status_code, _kept(dict(given.headers)), given.content)

    def _may_run(self, response: bytes) -> bool:
        try:
            sha256 = hashlib.sha256(fab_content(response)).hexdigest()
        except ValueError as error:
            sha256 = f"none ({error})"
        if sha256 == self._fab_sha256:
            return True
        self.refused = f"the SuperLink handed out a bundle with sha256 {sha256}"
        logger.warning("%s, the lease's has %s", self.refused, self._fab_sha256)
        return False


async def _request(
    connection: h11.Connection, reader: asyncio.StreamReader
) -> tuple[h11.Request, bytes | None] | None:
    """The next request, and its body unless that is too large; None at the end."""
    request, body = None, bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            if connection.they_are_waiting_for_100_continue:
                return None  # no SuperNode does
            connection.receive_data(await reader.read(PIECE))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            if len(body) <= LARGEST_BODY:
                body += event.data
        elif isinstance(event, h11.EndOfMessage) and request is not None:
            return request, bytes(body) if len(body) <= LARGEST_BODY else None
        else:
            return None


def _kept(headers: Headers) -> Headers:
    return {name: value for name, value in headers.items() if name.lower() not in _NOT_HANDED_ON}


def fab_content(response: bytes) -> bytes:
    """The bundle in a `flwr.proto.GetFabResponse`: field 1, and in that field 2.

    A decoder merges a field that comes twice; here it must come once.

    Raises:
        ValueError: it is no such message, or holds no bundle, or several.
    """
    (fab,) = [value for number, value in _fields(response) if number == 1]
    (content,) = [value for number, value in _fields(fab) if number == 2]
    return content


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a protobuf message, all of which have a length (wire type 2)."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        length, place = _varint(message, place)
        if tag & 7 != 2 or place + length > len(message):
            raise ValueError("no message of length-delimited fields")
        yield tag >> 3, message[place : place + length]
        place += length


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if place >= len(message):
            break
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place += 1
        if not byte & 0x80:
            return value, place
    raise ValueError("no varint")
