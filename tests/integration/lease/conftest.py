"""A lease service that runs: its doors on Unix sockets, real Postgres and NATS, a clock to move.

Its neighbours are voices: they publish, nothing answers them.
"""

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from flowerbed.contracts.door import Invite
from flowerbed.contracts.event import Event
from flowerbed.contracts.federation import FederationCreated
from flowerbed.contracts.ids import lease_id
from flowerbed.contracts.problems import parse_spec
from flowerbed.contracts.round import CohortMember, RoundEvaluationStarted, RoundStarted
from flowerbed.contracts.values import ArtifactRef
from flowerbed.events.service import Shell
from flowerbed.lease import MIGRATIONS, __main__
from flowerbed.lease.settings import LeaseSettings
from flowerbed.lease.waiting import Waiting
from tests.integration.lease.clients import Client, certificate_request, new_key
from tests.support.publishing import Publisher
from tests.support.servers import (
    MakeBus,
    MakeDatabase,
    MakeSettings,
    ServiceDatabase,
    eventually,
)

FED = "fed-0123456789abcdef"
BASE = ArtifactRef(uri="s3://flowerbed/checkpoints/base", sha256="b" * 64, size=10)
MINUTE = timedelta(minutes=1)


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
    settings: LeaseSettings
    clock: Clock
    internal: httpx.AsyncClient
    door: httpx.AsyncClient
    enrol_door: httpx.AsyncClient
    make_bus: MakeBus
    shell: Shell | None = None
    _voices: dict[str, Publisher] = field(default_factory=dict)

    async def start(self) -> None:
        self.shell = Shell(self.settings)
        await __main__.build(self.settings, self.shell)
        await self.shell.start()

    async def stop(self) -> None:
        if self.shell is not None:
            await self.shell.stop()
            self.shell = None

    # --- clients ----------------------------------------------------------------------------

    async def invite(self, tenant: str = "acme", tags: tuple[str, ...] = ()) -> Invite:
        body = {"tenant": tenant, "tags": list(tags), "actor": "alice"}
        answer = await self.internal.post("/internal/invites", json=body)
        assert answer.status_code == 200, answer.text
        return Invite.decode(answer.json()["invite"])

    async def enrol(
        self, invite: Invite, key: ec.EllipticCurvePrivateKey, **changes: Any
    ) -> httpx.Response:
        body = {
            "client_id": invite.client_id,
            "tenant": invite.tenant,
            "secret": invite.secret,
            "csr_pem": certificate_request(key),
            **changes,
        }
        return await self.enrol_door.post("/v1/enrol", json=body)

    async def client(self, tenant: str = "acme", tags: tuple[str, ...] = ()) -> Client:
        """Invited and enrolled."""
        invite, key = await self.invite(tenant, tags), new_key()
        answer = await self.enrol(invite, key)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        return Client(invite, self.door, key, told["certificate_pem"], told["jwks"])

    async def revoke(self, client: Client, reason: str = "lost laptop") -> httpx.Response:
        body = {"tenant": client.invite.tenant, "reason": reason, "actor": "alice"}
        return await self.internal.post(f"/internal/clients/{client.client_id}/revoke", json=body)

    # --- the orchestrator's voice -------------------------------------------------------------

    async def say(self, event: Event, tenant: str = "acme", federation_id: str = FED) -> None:
        if tenant not in self._voices:
            bus = await self.make_bus("orchestrator")
            self._voices[tenant] = Publisher(bus, "orchestrator", tenant)
        await self._voices[tenant].say(f"federation-{federation_id}", federation_id, event)

    async def create(self, tenant: str = "acme", federation_id: str = FED, **spec: Any) -> None:
        document = {
            "apiVersion": "flowerbed/v1",
            "metadata": {"name": "demo", "tenant": tenant},
            "spec": {
                "app": "builtin:hospital",
                "model_ref": {"uri": "builtin:hospital"},
                "num_rounds": 2,
                "train": {"seed": 7, "weight_decay": 0.5},
                "lease": {"ttl_seconds": 60, "max_epochs": 5},
                **spec,
            },
        }
        created = FederationCreated(
            federation_id=federation_id,
            submission_id="s1",
            spec=parse_spec(document).document(),
            code_hash="c" * 64,
            join_deadline_at=self.clock.now() + timedelta(hours=1),
        )
        await self.say(created, tenant, federation_id)

    def round_started(self, *clients: Client, number: int = 1, attempt: int = 1) -> RoundStarted:
        return RoundStarted(**self._exchange(clients, number, attempt))

    def evaluation_started(self, *clients: Client, number: int = 1) -> RoundEvaluationStarted:
        return RoundEvaluationStarted(**self._exchange(clients, number, 1), n_updates=1)

    def _exchange(self, clients: tuple[Client, ...], number: int, attempt: int) -> dict[str, Any]:
        return {
            "federation_id": FED,
            "round_number": number,
            "attempt": attempt,
            "base": BASE,
            "cohort": tuple(
                CohortMember(
                    client_id=one.client_id,
                    lease_id=lease_id(FED, one.client_id),
                    lease_epoch=1,
                    seed=100 + place,
                )
                for place, one in enumerate(clients)
            ),
            "goal": len(clients) or 1,
            "n_required": len(clients) or 1,
            "deadline_at": self.clock.now() + 10 * MINUTE,
            "seed": 7,
            "config": {"server-round": number, "local-epochs": 1},
        }

    # --- what came of it ----------------------------------------------------------------------

    async def events(self, stream: str) -> list[tuple[str, dict[str, Any]]]:
        async with self.made.database.read_all() as connection:
            rows = await connection.fetch(
                "SELECT type, data FROM events WHERE stream = $1 ORDER BY version", stream
            )
        return [(row["type"].removeprefix("fl."), json.loads(row["data"])) for row in rows]

    async def lease_events(self, client: Client) -> list[tuple[str, dict[str, Any]]]:
        return await self.events(f"lease-{FED}-{client.client_id}")

    async def types(self, client: Client) -> list[str]:
        return [event_type for event_type, _ in await self.lease_events(client)]

    async def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        async with self.made.database.read_all() as connection:
            return [dict(row) for row in await connection.fetch(query, *values)]

    async def until_heard(self, n_events: int) -> None:
        """All that the orchestrator's voice has said so far has had its effect."""

        async def heard() -> bool:
            rows = await self.rows("SELECT coalesce(sum(version), 0) AS n FROM cursors")
            return bool(rows[0]["n"] >= n_events)

        await eventually(heard, f"{n_events} events of the orchestrator are consumed")


def write_secrets(folder: Path) -> None:
    """`ca.pem`, `ca.key` and `signing.key`, as the deployer makes them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - MINUTE)
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    for file, private in (("ca.key", key), ("signing.key", Ed25519PrivateKey.generate())):
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / file).write_bytes(pem)


@pytest.fixture
def only_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long poll looks again when it is woken, and never by itself."""

    async def signal(event: asyncio.Event, seconds: float) -> None:
        await event.wait()

    monkeypatch.setattr(Waiting, "_signal", staticmethod(signal))


@pytest.fixture
async def house(
    service_database: MakeDatabase,
    service_settings: MakeSettings,
    bus: MakeBus,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[House]:
    made = await service_database("lease", [MIGRATIONS])
    folder = Path(tempfile.mkdtemp(prefix="flowerbed-lease-"))  # short: Unix sockets are in it
    write_secrets(folder)
    settings = LeaseSettings(
        **service_settings(made).model_dump(),
        client_socket=folder / "client.sock",
        enrol_socket=folder / "enrol.sock",
        client_url="https://127.0.0.1:2",
        enrol_url="https://127.0.0.1:1",
        ca_certificate_file=folder / "ca.pem",
        ca_key_file=folder / "ca.key",
        signing_key_file=folder / "signing.key",
        certificate_ttl_seconds=86_400,
        s3_endpoint="http://127.0.0.1:3",
        s3_access_key="key",
        s3_secret_key="only-for-tests",
        s3_bucket="flowerbed",
    )
    clock = Clock()
    monkeypatch.setattr(__main__, "now", clock.now)
    internal_token = settings.internal_token.get_secret_value()
    async with (
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{settings.http_port}",
            headers={"authorization": f"Bearer {internal_token}"},
        ) as internal,
        _behind(settings.client_socket) as door,
        _behind(settings.enrol_socket) as enrol_door,
    ):
        one = House(made, settings, clock, internal, door, enrol_door, bus)
        try:
            await one.start()
            yield one
        finally:
            await one.stop()
            shutil.rmtree(folder)


def _behind(socket: Path) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    return httpx.AsyncClient(transport=transport, base_url="http://door", timeout=60)
