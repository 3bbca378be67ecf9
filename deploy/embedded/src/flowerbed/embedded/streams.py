"""JetStream's streams and durables, declared from the topology. On every start; idempotent."""

import asyncio
from importlib import import_module

from flowerbed.embedded.errors import ComponentFailed
from flowerbed.embedded.setup import Setup
from flowerbed.events.errors import FlowerbedError


async def declare_streams(setup: Setup) -> None:
    # Its import takes a while, and the other servers are being watched meanwhile.
    await asyncio.to_thread(import_module, "flowerbed.events.jetstream")
    from flowerbed.events.jetstream import Bus, ensure_topology

    bus = Bus(f"nats://{setup.address('nats')}", "admin", setup.credentials.nats["admin"])
    await bus.start()
    try:
        await bus.wait_connected(10)
        await ensure_topology(bus)
    except FlowerbedError as error:
        raise ComponentFailed("nats", f"its streams could not be declared: {error}") from error
    finally:
        await bus.close()
