"""A gateway that runs on real servers, the services behind it played by a stub."""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import SecretStr

from flowerbed.contracts.event import Event
from flowerbed.events.message import Message
from flowerbed.events.recorded import Recorded
from flowerbed.events.service import Shell
from flowerbed.events.serving import Listener, tcp_socket
from flowerbed.events.store import EventStore
from flowerbed.gateway import MIGRATIONS
from flowerbed.gateway.app import build
from flowerbed.gateway.consumers import codec
from flowerbed.gateway.projections import PROJECTIONS
from flowerbed.gateway.settings import GatewaySettings
from flowerbed.gateway.webhooks.pace import Pace
from tests.integration.gateway.story import messages
from tests.support.servers import (
    MakeBus,
    MakeDatabase,
    MakeSettings,
    ServiceDatabase,
    eventually,
    free_port,
)


@dataclass
class Behind:
    """The services behind the gateway: what they were asked, and what they answer."""

    port: int
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    answers: dict[str, Response] = field(default_factory=dict)
    tokens: set[str | None] = field(default_factory=set)
    actors: list[str | None] = field(default_factory=list)
    _serving: tuple[Listener, "asyncio.Task[None]"] | None = None

    async def start(self) -> None:
        listener = Listener(self.app(), tcp_socket("127.0.0.1", self.port))
        self._serving = listener, asyncio.create_task(listener.run_until_stopped())

    async def stop(self) -> None:
        if self._serving is not None:
            listener, serving = self._serving
            self._serving = None
            listener.stop()
            await serving

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.api_route("/{path:path}", methods=["GET", "POST"])
        async def answer(path: str, request: Request) -> Response:
            body = await request.body()
            is_json = request.headers.get("content-type") == "application/json"
            sent = (await request.json() if is_json else body) if body else None
            self.asked.append((request.method, f"/{path}", sent))
            self.tokens.add(request.headers.get("authorization"))
            if request.method == "POST":
                self.actors.append(request.headers.get("flowerbed-actor"))
            default = [] if path == "internal/dead-letters" else {"path": path}
            return self.answers.get(f"/{path}") or JSONResponse(default)

        return app


@dataclass
class Gateway:
    settings: GatewaySettings
    shell: Shell
    made: ServiceDatabase
    http: httpx.AsyncClient
    behind: Behind
    make_bus: MakeBus

    async def hear(self, told: Sequence[Recorded[Event]]) -> None:
        """Publish the events as their owners' relays do, and wait until all are kept."""
        async with self.made.database.read_all() as connection:
            before = await connection.fetchval("SELECT count(*) FROM events")
        by_owner: dict[str, list[Message]] = defaultdict(list)
        for owner, message in messages(told):
            by_owner[owner].append(message)
        await asyncio.gather(*(self._relay(owner, list(m)) for owner, m in by_owner.items()))
        await eventually(partial(self._keeps, before + len(told)), "every event is kept")

    async def _relay(self, owner: str, relayed: list[Message]) -> None:
        bus = await self.make_bus(owner)
        for message in relayed:
            await bus.publish(message)

    async def _keeps(self, n_events: int) -> bool:
        async with self.made.database.read_all() as connection:
            return bool(await connection.fetchval("SELECT count(*) FROM events") == n_events)


@dataclass
class Kept:
    """The gateway's tables alone, without the service."""

    made: ServiceDatabase

    async def keep(self, told: Sequence[Recorded[Event]]) -> None:
        store = EventStore(codec, PROJECTIONS)
        for one in told:
            async with self.made.database.transaction(one.context.tenant) as tx:
                await store.record(tx, one)


@pytest.fixture
async def kept(service_database: MakeDatabase) -> Kept:
    return Kept(await service_database("gateway", [MIGRATIONS]))


@pytest.fixture
async def behind() -> AsyncIterator[Behind]:
    stub = Behind(free_port())
    await stub.start()
    yield stub
    await stub.stop()


@pytest.fixture
def more_settings() -> dict[str, Any]:
    """A module's own settings of the gateway."""
    return {}


@pytest.fixture
async def gateway(
    service_database: MakeDatabase, service_settings: MakeSettings, bus: MakeBus, behind: Behind,
    more_settings: dict[str, Any],
) -> AsyncIterator[Gateway]:  # fmt: skip
    made = await service_database("gateway", [MIGRATIONS])
    url = f"http://127.0.0.1:{behind.port}"
    settings = GatewaySettings(
        **(dict(service_settings(made)) | more_settings),
        api_token=SecretStr(secrets.token_urlsafe(12)),
        orchestrator_url=url,
        lease_url=url,
        aggregator_url=url,
        artifact_url=url,
        webhook_pace=Pace(first=0.01, longest=0.05),
    )
    shell = Shell(settings)
    await build(settings, shell)
    await shell.start()
    address = f"http://127.0.0.1:{settings.http_port}"
    headers = {"authorization": f"Bearer {settings.api_token.get_secret_value()}"}
    try:
        async with httpx.AsyncClient(base_url=address, headers=headers, timeout=60) as http:
            await eventually(partial(_is_ready, http), "the gateway is ready")
            known: dict[str, Any] = {}

            async def same_bus(user: str) -> Any:
                if user not in known:
                    known[user] = await bus(user)
                return known[user]

            yield Gateway(settings, shell, made, http, behind, same_bus)
    finally:
        await shell.stop()


async def _is_ready(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/readyz")).status_code == 200
    except httpx.TransportError:
        return False
