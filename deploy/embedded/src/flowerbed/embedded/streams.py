"""JetStream's streams and durables, declared from the topology. On every start; idempotent."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING

from flowerbed.embedded.errors import ComponentFailed
from flowerbed.embedded.setup import Setup
from flowerbed.events.declare import retire_durables
from flowerbed.events.errors import FlowerbedError

if TYPE_CHECKING:
    from flowerbed.events.jetstream import Bus

logger = logging.getLogger(__name__)

ELECTION_SECONDS = 30.0
"""For a cluster to choose who leads it."""


async def declare_streams(setup: Setup) -> None:
    async with _administered(setup) as bus:
        await _declare(bus, setup.shape.nats_nodes)


async def retire_streams(setup: Setup) -> None:
    """Delete the durables of releases before; one that stays costs little, and goes next time."""
    try:
        async with _administered(setup) as bus:
            await retire_durables(bus)
    except ComponentFailed as error:
        logger.warning("durables of an earlier release stay: %s", error)


@asynccontextmanager
async def _administered(setup: Setup) -> AsyncIterator["Bus"]:
    # Its import takes a while, and the other servers are being watched meanwhile.
    await asyncio.to_thread(import_module, "flowerbed.events.jetstream")
    from flowerbed.events.jetstream import Bus

    bus = Bus(f"nats://{setup.address('nats')}", "admin", setup.credentials.nats["admin"])
    await bus.start()
    try:
        await bus.wait_connected(10)
        yield bus
    except FlowerbedError as error:
        raise ComponentFailed("nats", f"its streams could not be declared: {error}") from error
    finally:
        await bus.close()


async def _declare(bus: "Bus", n_nodes: int) -> None:
    """A new cluster refuses until it has a leader, and takes some tries with all three."""
    from flowerbed.events.jetstream import ensure_topology

    deadline = time.monotonic() + (ELECTION_SECONDS if n_nodes > 1 else 0)
    while True:
        try:
            await ensure_topology(bus, replicas=n_nodes)
            return
        except FlowerbedError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.2)
