"""An orchestrator that runs on real Postgres and NATS; its neighbours are voices."""

import json
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import nats
import pytest
from nats.js.api import PubAck

from flowerbed.contracts.aggregate import AggregateCompleted, AggregateFailed
from flowerbed.contracts.artifact import ArtifactRecorded
from flowerbed.contracts.client import ClientDropped, ClientJoined, ClientReleased
from flowerbed.contracts.event import Event
from flowerbed.contracts.ids import federation_id
from flowerbed.contracts.server_app import MessagesPushed
from flowerbed.contracts.values import ArtifactRef, DatasetRef, Exchange
from flowerbed.events.service import Shell
from flowerbed.orchestrator import MIGRATIONS, __main__
from tests.support.federations import BASE, document
from tests.support.publishing import Publisher
from tests.support.servers import (
    MakeBus,
    MakeDatabase,
    MakeSettings,
    NatsServer,
    ServiceDatabase,
    eventually,
)

SUBJECT = "fl.federation.submitted"


@dataclass(slots=True)
class Clock:
    """Real time, and what a test has added to it."""

    ahead: timedelta = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def move(self, by: timedelta) -> None:
        self.ahead += by


@dataclass(slots=True)
class House:
    made: ServiceDatabase
    settings: __main__.OrchestratorSettings
    clock: Clock
    http: httpx.AsyncClient
    nats_server: NatsServer
    make_bus: MakeBus
    shell: Shell | None = None
    _voices: dict[tuple[str, str], Publisher] = field(default_factory=dict)
    _submitter: Any = None

    async def start(self) -> None:
        self.shell = Shell(self.settings)
        await __main__.build(self.shell)
        await self.shell.start()

    async def stop(self) -> None:
        if self.shell is not None:
            await self.shell.stop()
            self.shell = None
        if self._submitter is not None:
            await self._submitter.close()
            self._submitter = None

    # --- a person ---------------------------------------------------------------------------

    async def publish(
        self, body: bytes, headers: dict[str, str] | None = None, subject: str = SUBJECT
    ) -> PubAck:
        """As anybody with the submitter's password does."""
        if self._submitter is None:
            self._submitter = await nats.connect(
                self.nats_server.url,
                user="submitter",
                password=self.nats_server.passwords["submitter"],
                inbox_prefix=b"_INBOX.submitter",
            )
        ack: PubAck = await self._submitter.jetstream().publish(subject, body, headers=headers)
        return ack

    async def submit(self, tenant: str = "acme", **spec: Any) -> str:
        """A federation that was created; its id."""
        written = document(**spec)
        written["metadata"]["tenant"] = tenant
        name = secrets.token_hex(8)
        await self.publish(json.dumps(written).encode(), {"ce-id": name})
        identity = federation_id(tenant, name)
        await self.heard(identity, "federation.created")
        return identity

    async def change(self, federation: str, **changes: Any) -> httpx.Response:
        path = f"/internal/federations/{federation}/policy"
        body = {"tenant": "acme", "actor": "alice", "reason": "slow site", "changes": changes}
        return await self.http.post(path, json=body)

    async def command(self, verb: str, federation: str, **body: str) -> httpx.Response:
        path = f"/internal/federations/{federation}/{verb}"
        return await self.http.post(path, json={"tenant": "acme", "actor": "alice", **body})

    # --- the neighbours' voices ---------------------------------------------------------------

    async def say(
        self, service: str, stream: str, federation: str, event: Event, tenant: str
    ) -> None:
        if (service, tenant) not in self._voices:
            bus = await self.make_bus(service)
            self._voices[service, tenant] = Publisher(bus, service, tenant)
        await self._voices[service, tenant].say(stream, federation, event)

    async def join(
        self, federation: str, *names: str, epoch: int = 1, tenant: str = "acme"
    ) -> None:
        for name in names:
            joined = ClientJoined(
                client_id=f"client-{name}",
                federation_id=federation,
                lease_id=f"lease-{name}",
                epoch=epoch,
                dataset=DatasetRef(label=f"hospital-{name}", sha256=digest(name)),
            )
            stream = f"lease-{federation}-client-{name}"
            await self.say("lease", stream, federation, joined, tenant)

    async def leave(
        self,
        federation: str,
        name: str,
        epoch: int = 1,
        kind: type[ClientDropped] | type[ClientReleased] = ClientDropped,
    ) -> None:
        left = kind(
            client_id=f"client-{name}", federation_id=federation, lease_id=f"lease-{name}",
            epoch=epoch,
        )  # fmt: skip
        await self.say("lease", f"lease-{federation}-client-{name}", federation, left, "acme")

    async def record(
        self,
        federation: str,
        number: int,
        artifact: ArtifactRef = BASE,
        attempt: int = 1,
        kind: str = "",
        tenant: str = "acme",
        owing: tuple[str, ...] = (),
    ) -> None:
        """The artifact service has verified it. Round 0 is the base."""
        recorded = ArtifactRecorded(
            federation_id=federation,
            round_number=number,
            attempt=attempt,
            exchange="train" if number else "initialize",
            kind=kind or ("checkpoint" if number else "base"),
            artifact=artifact,
            n_updates=2 if number else 0,
            metrics={"train-loss": 0.5} if number else {},
            owing=owing,
        )
        await self.say("artifact", f"lineage-{federation}", federation, recorded, tenant)

    async def push(self, federation: str, tenant: str = "acme") -> None:
        """A whole ServerApp has sent messages, which run out in a minute."""
        pushed = MessagesPushed(
            federation_id=federation,
            round_number=1,
            cohort=(),
            n_nodes=2,
            at=1.0,
            deadline_at=self.clock.now() + timedelta(minutes=1),
        )
        await self.say("aggregator", f"serverapp-{federation}", federation, pushed, tenant)

    async def aggregate(
        self,
        federation: str,
        number: int,
        exchange: Exchange = "evaluate",
        attempt: int = 1,
        failed: str = "",
    ) -> None:
        of: dict[str, Any] = {
            "federation_id": federation, "round_number": number, "attempt": attempt,
            "exchange": exchange,
        }  # fmt: skip
        event: Event
        if failed:
            event = AggregateFailed(**of, code="quorum-missed", reason=failed)
        else:
            event = AggregateCompleted(**of, checkpoint=None, metrics={"accuracy": 0.75})
        stream = f"exchange-{federation}-{number}-{attempt}-{exchange}"
        await self.say("aggregator", stream, federation, event, "acme")

    # --- what came of it ----------------------------------------------------------------------

    async def events(self, federation: str) -> list[tuple[str, dict[str, Any]]]:
        rows = await self.rows(
            "SELECT type, data FROM events WHERE stream = $1 ORDER BY version",
            f"federation-{federation}",
        )
        return [(row["type"].removeprefix("fl."), json.loads(row["data"])) for row in rows]

    async def types(self, federation: str) -> list[str]:
        return [event_type for event_type, _ in await self.events(federation)]

    async def heard(self, federation: str, event_type: str, count: int = 1) -> dict[str, Any]:
        """The `count`th event of the type, once it is there."""
        found: list[dict[str, Any]] = []

        async def there() -> bool:
            found[:] = [data for name, data in await self.events(federation) if name == event_type]
            return len(found) >= count

        await eventually(there, f"{event_type} ({count}) in {federation}")
        return found[count - 1]

    async def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        async with self.made.database.read_all() as connection:
            return [dict(row) for row in await connection.fetch(query, *values)]

    async def until_consumed(self, n_events: int) -> None:
        """So many events of the neighbours have had their effect."""

        async def consumed() -> bool:
            (row,) = await self.rows("SELECT coalesce(sum(version), 0) AS n FROM cursors")
            return bool(row["n"] >= n_events)

        await eventually(consumed, f"{n_events} events are consumed")


def digest(name: str) -> str:
    return (name.encode().hex() * 64)[:64]


def types_of(events: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    return [event_type for event_type, _ in events]


@pytest.fixture
async def house(
    service_database: MakeDatabase,
    service_settings: MakeSettings,
    bus: MakeBus,
    nats_server: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[House]:
    made = await service_database("orchestrator", [MIGRATIONS])
    settings = __main__.OrchestratorSettings(**service_settings(made).model_dump())
    clock = Clock()
    monkeypatch.setattr(__main__, "now", clock.now)
    headers = {"authorization": f"Bearer {settings.internal_token.get_secret_value()}"}
    address = f"http://127.0.0.1:{settings.http_port}"
    async with httpx.AsyncClient(base_url=address, headers=headers, timeout=30) as http:
        one = House(made, settings, clock, http, nats_server, bus)
        try:
            await one.start()
            yield one
        finally:
            await one.stop()
