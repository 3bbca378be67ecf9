"""One S3 server for this folder's tests, and an artifact service on real servers."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from flowerbed.artifact import MIGRATIONS
from flowerbed.artifact.__main__ import wire
from flowerbed.artifact.settings import ArtifactSettings
from flowerbed.artifact.verifier import Verifier
from flowerbed.events.service import Shell
from tests.support.publishing import Publisher
from tests.support.s3 import S3Server, blobs, s3
from tests.support.servers import MakeBus, MakeDatabase, MakeSettings, ServiceDatabase

__all__ = ["blobs", "s3"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights" * 1000)
    return path


@dataclass(slots=True)
class ArtifactService:
    """A running service, the aggregator-bridge's voice, and another service's HTTP client."""

    made: ServiceDatabase
    settings: ArtifactSettings
    bridge: Publisher
    http: httpx.AsyncClient
    shell: Shell | None = None
    verifier: Verifier | None = None

    async def start(self) -> None:
        self.shell = Shell(self.settings)
        self.verifier = wire(self.shell, self.settings)
        await self.shell.start()

    async def stop(self) -> None:
        if self.shell is not None:
            await self.shell.stop()
            self.shell = None

    async def events(self) -> list[tuple[str, dict[str, Any]]]:
        """Everything recorded, oldest first."""
        async with self.made.database.read_all() as connection:
            rows = await connection.fetch("SELECT type, data FROM events ORDER BY gpos")
        return [(row["type"], json.loads(row["data"])) for row in rows]


@pytest.fixture
async def service(
    service_database: MakeDatabase, service_settings: MakeSettings, bus: MakeBus, s3: S3Server
) -> AsyncIterator[ArtifactService]:
    made = await service_database("artifact", [MIGRATIONS])
    settings = ArtifactSettings(
        **service_settings(made).model_dump(),
        s3_endpoint=s3.endpoint,
        s3_access_key=s3.access_key,
        s3_secret_key=s3.secret_key,
    )
    token = settings.internal_token.get_secret_value()
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{settings.http_port}",
        headers={"authorization": f"Bearer {token}"},
    ) as http:
        publisher = Publisher(await bus("aggregator"), "aggregator")
        one = ArtifactService(made, settings, publisher, http)
        await one.start()
        yield one
        await asyncio.wait_for(one.stop(), 20)
