"""Speaks graphql-transport-ws over a real WebSocket."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

PROTOCOL = Subprotocol("graphql-transport-ws")


class Spoken:
    """A connection on which the server has said who we are."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def subscribe(self, query: str, **variables: Any) -> AsyncGenerator[Any, None]:
        """The `data` of each answer, until the server says that it was the last."""
        payload = {"query": query, "variables": variables}
        await self.say({"id": "1", "type": "subscribe", "payload": payload})
        while True:
            message = await self.hear()
            if message["type"] == "complete":
                return
            if message["type"] == "error":
                raise Refused(message["payload"])
            if "errors" in message["payload"]:
                raise Refused(message["payload"]["errors"])
            yield message["payload"]["data"]

    async def say(self, message: dict[str, Any]) -> None:
        await self.socket.send(json.dumps(message))

    async def hear(self) -> dict[str, Any]:
        while True:
            message: dict[str, Any] = json.loads(await self.socket.recv())
            if message["type"] != "ping":
                return message


class Refused(Exception):
    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__(str(errors))
        self.errors = errors


@asynccontextmanager
async def spoken(
    http: httpx.AsyncClient, *, in_header: bool = False, token: str | None = None
) -> AsyncIterator[Spoken]:
    """With the token of `http`, or another; in `connection_init` as a browser sends it."""
    url = str(http.base_url.copy_with(scheme="ws", path="/graphql"))
    shown = {"Authorization": token or http.headers["authorization"]}
    headers = shown if in_header else {}
    async with connect(url, subprotocols=[PROTOCOL], additional_headers=headers) as socket:
        init: dict[str, Any] = {"type": "connection_init"}
        await socket.send(json.dumps(init if in_header else {**init, "payload": shown}))
        one = Spoken(socket)
        assert (await one.hear())["type"] == "connection_ack"
        yield one
