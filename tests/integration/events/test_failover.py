"""What is left when a server or a replica is gone, or stands still: another one."""

import asyncio
from collections.abc import Awaitable, Callable

from flowerbed.events.jetstream import Bus
from tests.support.servers import NatsServer, Proxy, free_port

MakeProxy = Callable[[int], Awaitable[Proxy]]


def bus_of(server: NatsServer, *ports: int) -> Bus:
    addresses = ", ".join(f"nats://127.0.0.1:{port}" for port in ports)
    return Bus(addresses, "lease", server.passwords["lease"])


async def test_bus_finds_the_server_that_is_there(nats_server: NatsServer) -> None:
    bus = bus_of(nats_server, free_port(), free_port(), nats_server.port)
    await bus.start()
    try:
        await bus.wait_connected(5)
    finally:
        await bus.close()


async def test_bus_leaves_a_server_that_stands_still(
    nats_server: NatsServer, fresh_streams: Bus, proxy: MakeProxy
) -> None:
    doors = [await proxy(nats_server.port) for _ in range(2)]
    bus = bus_of(nats_server, *(door.port for door in doors))
    await bus.start()
    try:
        await bus.wait_connected(5)
        link = bus._link
        assert link is not None and link.client.connected_url is not None
        used = link.client.connected_url.port
        for door in doors:
            if door.port == used:
                door.flows.clear()
        await asyncio.wait_for(link.closed, 6)
        await bus.wait_connected(6)
        assert (await bus.tail("FL_LEASE")).sequence == 0
    finally:
        await bus.close()
