"""An aggregator-bridge on real servers, and the voices of its neighbours."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save

from flowerbed.aggregator import MIGRATIONS
from flowerbed.aggregator.__main__ import wire
from flowerbed.aggregator.bridge import Bridge
from flowerbed.aggregator.exchanges import AllExchanges
from flowerbed.aggregator.settings import AggregatorSettings
from flowerbed.artifact.blobs import Blobs
from flowerbed.contracts.federation import FederationCreated
from flowerbed.contracts.ids import work_id
from flowerbed.contracts.problems import parse_spec
from flowerbed.contracts.round import (
    CohortMember,
    OwedWork,
    RoundEvaluationStarted,
    RoundMemberReplaced,
    RoundStarted,
)
from flowerbed.contracts.update import UpdateFailed, UpdateSubmitted
from flowerbed.contracts.values import ArtifactRef
from flowerbed.events.service import Shell
from tests.support.models import Model
from tests.support.publishing import Publisher
from tests.support.s3 import S3Server, blobs, s3
from tests.support.servers import (
    MakeBus,
    MakeDatabase,
    MakeSettings,
    ServiceDatabase,
    eventually,
)

__all__ = ["blobs", "s3"]

FED = "fed-0123456789abcdef"


def model(seed: int, size: int = 400) -> Model:
    generator = np.random.default_rng(seed)
    return {
        "layer.weight": generator.standard_normal((size // 10, 10)).astype(np.float32),
        "layer.bias": generator.standard_normal(10).astype(np.float32),
    }


@dataclass(slots=True)
class Garden:
    """A running bridge. Its neighbours are voices: they publish, nothing answers them."""

    made: ServiceDatabase
    settings: AggregatorSettings
    orchestrator: Publisher
    lease: Publisher
    blobs: Blobs
    s3: S3Server
    folder: Path
    http: httpx.AsyncClient
    federation_id: str = FED
    shell: Shell | None = None
    exchanges: AllExchanges | None = None
    base: ArtifactRef | None = None
    _count: int = field(default=0)

    # --- the bridge -------------------------------------------------------------------------

    async def start(self) -> None:
        self.shell = Shell(self.settings)
        self.exchanges = wire(self.shell, self.settings)
        await self.shell.start()

    async def stop(self) -> None:
        if self.shell is not None:
            await self.shell.stop()
            self.shell = None

    @property
    def bridge(self) -> Bridge:
        assert self.exchanges is not None
        return self.exchanges.parts[0].bridge

    # --- S3 ---------------------------------------------------------------------------------

    def put(self, content: bytes, key: str | None = None) -> ArtifactRef:
        sha256 = hashlib.sha256(content).hexdigest()
        path = self.folder / sha256
        path.write_bytes(content)
        key = key or f"checkpoints/updates/{self.federation_id}/{self.next()}.safetensors"
        return self.blobs.put_if_absent(self.s3.bucket, key, path, sha256)

    def put_model(self, seed: int) -> ArtifactRef:
        return self.put(save(model(seed)))

    def next(self) -> int:
        self._count += 1
        return self._count

    # --- the orchestrator's voice -------------------------------------------------------------

    async def create(
        self, *, join_seconds: float = 600, code_hash: str = "c" * 64, **spec: Any
    ) -> None:
        """Ask for a federation whose base lies in S3, unless `spec` says otherwise."""
        if "model_ref" not in spec:
            self.base = self.put_model(0)
            spec["model_ref"] = {"uri": self.base.uri, "sha256": self.base.sha256}
        document = {
            "apiVersion": "flowerbed/v1",
            "metadata": {"name": "demo", "tenant": "acme"},
            "spec": {"app": "builtin:hospital", "num_rounds": 2, "train": {"seed": 7}, **spec},
        }
        await self.orchestrate(
            FederationCreated(
                federation_id=self.federation_id,
                submission_id="s1",
                spec=parse_spec(document).document(),
                code_hash=code_hash,
                join_deadline_at=datetime.now(UTC) + timedelta(seconds=join_seconds),
            )
        )

    async def start_round(
        self,
        cohort: Sequence[str],
        *,
        number: int = 1,
        attempt: int = 1,
        seconds: float = 600,
        exchange: str = "train",
        **more: Any,
    ) -> str:
        """The exchange's stream."""
        assert self.base is not None
        cls, extra = (
            (RoundStarted, {})
            if exchange == "train"
            else (RoundEvaluationStarted, {"n_updates": len(cohort)})
        )
        await self.orchestrate(
            cls(
                **{
                    "federation_id": self.federation_id,
                    "round_number": number,
                    "attempt": attempt,
                    "base": self.base,
                    "cohort": tuple(
                        CohortMember(client_id=name, lease_id=f"l-{name}", lease_epoch=1, seed=1)
                        for name in cohort
                    ),
                    "goal": len(cohort),
                    "n_required": len(cohort),
                    "deadline_at": datetime.now(UTC) + timedelta(seconds=seconds),
                    "seed": 7,
                    "config": {},
                    **extra,
                    **more,
                }
            )
        )
        return self.stream(number, attempt, exchange)

    def owed(self, client_id: str, number: int, base: ArtifactRef) -> OwedWork:
        """Work of a round's first attempt that the client has not answered."""
        return OwedWork(
            client_id=client_id,
            work_id=work_id(self.federation_id, number, 1, "train", client_id),
            round_number=number,
            attempt=1,
            base=base,
        )

    async def replace(self, place: int, client_id: str, by: str) -> None:
        """In the first round's first attempt."""
        await self.orchestrate(
            RoundMemberReplaced(
                federation_id=self.federation_id,
                round_number=1,
                attempt=1,
                place=place,
                client_id=client_id,
                replacement=CohortMember(client_id=by, lease_id=f"l-{by}", lease_epoch=1, seed=1),
            )
        )

    async def orchestrate(self, event: Any) -> None:
        await self.orchestrator.say(f"federation-{self.federation_id}", self.federation_id, event)

    # --- the lease service's voice ------------------------------------------------------------

    async def submit(
        self,
        client_id: str,
        artifact: ArtifactRef | None,
        *,
        number: int = 1,
        attempt: int = 1,
        exchange: str = "train",
        n_examples: int = 10,
        **more: Any,
    ) -> None:
        fed = self.federation_id
        event = UpdateSubmitted(
            **{
                "federation_id": fed,
                "round_number": number,
                "attempt": attempt,
                "exchange": exchange,
                "client_id": client_id,
                "work_id": work_id(fed, number, attempt, exchange, client_id),
                "lease_epoch": 1,
                "artifact": artifact,
                "n_examples": n_examples,
                "train_seconds": 0.5,
                **more,
            }
        )
        await self.lease.say(f"lease-{fed}-{client_id}", fed, event)

    async def report_failure(self, client_id: str, code: str = "app-failed") -> None:
        event = UpdateFailed(
            federation_id=self.federation_id,
            round_number=1,
            attempt=1,
            exchange="train",
            client_id=client_id,
            work_id=work_id(self.federation_id, 1, 1, "train", client_id),
            lease_epoch=1,
            code=code,
            detail="it broke",
        )
        stream = f"lease-{self.federation_id}-{client_id}"
        await self.lease.say(stream, self.federation_id, event)

    # --- what came of it ----------------------------------------------------------------------

    def stream(self, number: int = 1, attempt: int = 1, exchange: str = "train") -> str:
        return f"exchange-{self.federation_id}-{number}-{attempt}-{exchange}"

    async def events(self, stream: str) -> list[tuple[str, dict[str, Any]]]:
        async with self.made.database.read_all() as connection:
            rows = await connection.fetch(
                "SELECT type, data FROM events WHERE stream = $1 ORDER BY version", stream
            )
        return [(row["type"].removeprefix("fl."), json.loads(row["data"])) for row in rows]

    async def heard(self, stream: str, count: int) -> list[tuple[str, dict[str, Any]]]:
        """The stream's events, once there are `count`."""

        async def reached() -> bool:
            return len(await self.events(stream)) >= count

        await eventually(reached, f"{count} events in {stream}", timeout=30)
        return await self.events(stream)

    async def outcome(self, stream: str) -> dict[str, Any]:
        """How the exchange ended; `type` says whether it completed."""
        found: dict[str, Any] = {}

        async def ended() -> bool:
            for event_type, data in await self.events(stream):
                if event_type.startswith("aggregate."):
                    found.update(data, type=event_type)
            return bool(found)

        await eventually(ended, f"the end of {stream}", timeout=30)
        return found


@pytest.fixture
async def garden(
    service_database: MakeDatabase,
    service_settings: MakeSettings,
    bus: MakeBus,
    s3: S3Server,
    blobs: Blobs,
    tmp_path: Path,
) -> AsyncIterator[Garden]:
    made = await service_database("aggregator", [MIGRATIONS])
    settings = AggregatorSettings(
        **service_settings(made).model_dump(),
        s3_endpoint=s3.endpoint,
        s3_access_key=s3.access_key,
        s3_secret_key=s3.secret_key,
        spool_directory=tmp_path / "spool",
    )
    token = settings.internal_token.get_secret_value()
    folder = tmp_path / "uploads"
    folder.mkdir()
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{settings.http_port}",
        headers={"authorization": f"Bearer {token}"},
        timeout=60,
    ) as http:
        one = Garden(
            made=made,
            settings=settings,
            orchestrator=Publisher(await bus("orchestrator"), "orchestrator"),
            lease=Publisher(await bus("lease"), "lease"),
            blobs=blobs,
            s3=s3,
            folder=folder,
            http=http,
            federation_id=f"fed-{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:16]}",
        )
        await one.start()
        yield one
        await asyncio.wait_for(one.stop(), 30)
