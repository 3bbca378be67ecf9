"""A real HTTP server that webhooks are sent to, with moods."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response

from flowerbed.events.serving import Listener, tcp_socket
from tests.support.servers import free_port


@dataclass(frozen=True, slots=True)
class Sent:
    path: str
    headers: dict[str, str]
    body: bytes
    status: int


@dataclass
class Receiver:
    """`answer` is asked before each answer; whatever it was, what came is kept."""

    port: int = field(default_factory=free_port)
    answer: Callable[[], Response] = lambda: Response(status_code=204)
    holding: asyncio.Event = field(default_factory=asyncio.Event)
    """While it is cleared, nobody is answered."""
    sent: list[Sent] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def taken(self) -> list[Sent]:
        """What it said yes to."""
        return [one for one in self.sent if one.status < 300]

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/{path:path}")
        async def receive(path: str, request: Request) -> Response:
            body = await request.body()
            await self.holding.wait()
            answer = self.answer()
            headers = dict(request.headers)
            self.sent.append(Sent(f"/{path}", headers, body, answer.status_code))
            return answer

        return app


@asynccontextmanager
async def receiving(**moods: Any) -> AsyncIterator[Receiver]:
    receiver = Receiver(**moods)
    receiver.holding.set()
    listener = Listener(receiver.app(), tcp_socket("127.0.0.1", receiver.port))
    serving = asyncio.create_task(listener.run_until_stopped())
    try:
        yield receiver
    finally:
        receiver.holding.set()
        listener.stop()
        await serving
