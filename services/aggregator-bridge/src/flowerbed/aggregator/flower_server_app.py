"""The ServerApp of every run over a SuperLink: a relay between the lease service and Flower's Grid.

Flower's SuperExec starts it in a process of its own. What it must know, secrets too, it reads from
the file that FLOWERBED_RELAY_SETTINGS names, never from the run's config, which anybody may list.
"""

import asyncio
import logging
import os
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import httpx
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from pydantic import BaseModel, ConfigDict, SecretStr

from flowerbed.aggregator.relay import Relay
from flowerbed.aggregator.relay_works import FederationOver, LeaseWorks
from flowerbed.aggregator.superlink import raw_key
from flowerbed.artifact.blobs import Blobs
from flowerbed.contracts.run_bundle import ATTEMPT, FEDERATION, TENANT
from flowerbed.events.errors import Unavailable

logger = logging.getLogger(__name__)

SETTINGS_VARIABLE = "FLOWERBED_RELAY_SETTINGS"
PACE = 0.5
"""Seconds between two looks for replies; Flower's own Grid takes three."""
LOOK_SECONDS = 1.0
BEAT_SECONDS = 2.0

app = ServerApp()


class RelaySettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    lease_url: tuple[str, ...]
    aggregator_url: tuple[str, ...]
    internal_token: SecretStr
    s3_endpoint: str
    s3_access_key: str
    s3_secret_key: SecretStr
    s3_bucket: str
    log: Path

    @classmethod
    def load(cls, path: Path) -> "RelaySettings":
        """Raises: PermissionError: others may read it."""
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise PermissionError(f"{path} holds secrets and has mode {mode:04o}, not 0600")
        return cls.model_validate_json(path.read_bytes())


@app.main()
def main(grid: Grid, context: Context) -> None:
    settings, told = RelaySettings.load(Path(os.environ[SETTINGS_VARIABLE])), context.run_config
    _log_to(settings.log, f"{told[FEDERATION]} attempt {told[ATTEMPT]}")
    asyncio.run(_relay(grid, settings, str(told[FEDERATION]), str(told[TENANT]), told[ATTEMPT]))


def _log_to(path: Path, who: str) -> None:
    """What a ServerApp prints nobody sees but who asks the SuperLink for it."""
    handler = logging.FileHandler(path)
    handler.setLevel(logging.INFO)  # Flower's own logger lets more through
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {who}: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)


async def _relay(
    grid: Grid, settings: RelaySettings, federation_id: str, tenant: str, attempt: object
) -> None:
    works = LeaseWorks(settings.lease_url, settings.internal_token, federation_id, tenant)
    nodes = Nodes(grid, works)
    secret = settings.s3_secret_key.get_secret_value()
    blobs = Blobs(settings.s3_endpoint, settings.s3_access_key, secret)
    beside = [
        asyncio.create_task(nodes.keep()),
        asyncio.create_task(_beat(settings, federation_id, attempt)),
    ]
    try:
        with tempfile.TemporaryDirectory(prefix="relay-") as folder:
            relay = Relay(
                grid, works, nodes, blobs, Path(folder), pace=PACE, idle_since=nodes.idle_since
            )
            await relay.run()
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await works.close()


async def _beat(settings: RelaySettings, federation_id: str, attempt: object) -> None:
    """Say, for ever, that this ServerApp lives: to every replica, one of which watches it."""
    headers = {"authorization": f"Bearer {settings.internal_token.get_secret_value()}"}
    path = f"/flower-runs/{federation_id}/beats"
    async with httpx.AsyncClient(headers=headers, timeout=BEAT_SECONDS) as http:
        while True:
            for url in settings.aggregator_url:
                with suppress(httpx.HTTPError):
                    await http.post(url + path, json={"attempt": attempt})
            await asyncio.sleep(BEAT_SECONDS)


class Nodes(Mapping[str, int]):
    """Flower's node of each client that holds a lease and is there now."""

    def __init__(self, grid: Grid, works: LeaseWorks) -> None:
        self._grid = grid
        self._works = works
        self._found: dict[str, int] = {}
        self._idle: dict[str, float] = {}

    def __getitem__(self, client_id: str) -> int:
        return self._found[client_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def idle_since(self, client_id: str) -> float | None:
        """When, on the monotonic clock, its SuperNode was last known to have no work."""
        return self._idle.get(client_id)

    async def keep(self) -> None:
        """Keep what is known up to date, for ever."""
        while True:
            try:
                await self._look()
            except Unavailable as error:
                logger.warning("nodes are not looked up: %s", error)
            except FederationOver:
                return  # the relay hears of it too
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        asked_at = time.monotonic()
        held = await self._works.nodes()
        online = await asyncio.to_thread(self._grid.get_nodes)
        there = {node.public_key: node.node_id for node in online}
        keys = {node.client_id: raw_key(node.node_key) for node in held.nodes}
        self._found = {client: there[key] for client, key in keys.items() if key in there}
        self._idle = {
            node.client_id: asked_at - (held.now - node.idle_at).total_seconds()
            for node in held.nodes
            if node.idle_at is not None
        }
