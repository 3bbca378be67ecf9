"""What is left when a server or a replica is gone, or stands still: another one."""

import asyncio
import signal
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from flowerbed.events.jetstream import Bus
from flowerbed.events.service import Shell
from flowerbed.lease.__main__ import WAITING
from flowerbed.lease.waiting import Waiting
from tests.support.garden import MIGRATIONS
from tests.support.garden_service import build
from tests.support.replicas import replica
from tests.support.servers import (
    MakeBus,
    MakeDatabase,
    MakeSettings,
    NatsServer,
    Proxy,
    eventually,
    free_port,
)

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
        await asyncio.wait_for(link.closed, 10)
        await eventually(lambda: bus._link is not link and bus.is_connected, "another server")
        assert (await bus.tail("FL_LEASE")).sequence == 0
    finally:
        await bus.close()


async def test_bus_that_is_closed_while_its_client_is_closed_ends(
    nats_server: NatsServer,
) -> None:
    for _ in range(3):
        bus = bus_of(nats_server, nats_server.port)
        await bus.start()
        await bus.wait_connected(5)
        link = bus._link
        assert link is not None
        link.closed.set_result(None)  # the keeper goes on to close the client
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.wait_for(bus.close(), 5)


async def test_bus_connects_again_when_its_client_ends_without_a_word(
    nats_server: NatsServer,
) -> None:
    bus = bus_of(nats_server, nats_server.port)
    await bus.start()
    try:
        await bus.wait_connected(5)
        link = bus._link
        assert link is not None
        link.client._closed_cb = None  # as when what it had still to send fails
        await link.client.close()
        await eventually(lambda: bus._link is not link and bus.is_connected, "connected again")
        assert link.closed.done(), "who used the old connection was not told"
    finally:
        await bus.close()


@asynccontextmanager
async def serving(shell: Shell) -> AsyncIterator[Shell]:
    await build(shell)
    await shell.start()
    try:
        yield shell
    finally:
        await shell.stop()


async def test_another_replica_relays_for_one_that_stands_still_or_dies(
    service_database: MakeDatabase, fresh_streams: Bus, service_settings: MakeSettings,
    tmp_path: Path,
) -> None:  # fmt: skip
    lease = await service_database("lease", [MIGRATIONS])
    theirs = service_settings(lease)
    second = Shell(service_settings(lease))
    beds = iter(range(100))

    async def sow(settings_port: int) -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{settings_port}") as http:
            (await http.post(f"/beds/bed-{next(beds)}/sow")).raise_for_status()

    async def relayed() -> list[str]:
        info = await fresh_streams.api("STREAM.INFO.FL_LEASE", {})
        return [await _bed(fresh_streams, n + 1) for n in range(info["state"]["last_seq"])]

    async def is_relayed(n_beds: int) -> bool:
        return await relayed() == [f"bed-{n}" for n in range(n_beds)]

    async with replica("tests.support.garden_service", theirs, tmp_path) as first:
        await eventually(lambda: _leads(theirs.http_port, "relay"), "the process relays")
        await sow(theirs.http_port)
        await eventually(lambda: is_relayed(1), "by itself")
        async with serving(second):
            first.send_signal(signal.SIGSTOP)
            for _ in range(6):
                await sow(second.settings.http_port)
            await eventually(lambda: is_relayed(7), "by the other one", timeout=15)
            first.send_signal(signal.SIGCONT)
            await eventually(lambda: _leads(theirs.http_port), "it knows that it lost the role")
            await eventually(lambda: _lags(theirs.http_port, 0), "the lag is that of the service")
            await sow(theirs.http_port)
            await eventually(lambda: is_relayed(8), "still once, and in order")
            assert second.leadership.holds("relay")
        await eventually(lambda: _leads(theirs.http_port, "relay"), "it leads again")
        async with serving(Shell(third := service_settings(lease))):
            first.kill()
            await sow(third.http_port)
            await eventually(lambda: is_relayed(9), "by the next one")


async def _bed(admin: Bus, sequence: int) -> str:
    found = await admin.api("STREAM.MSG.GET.FL_LEASE", {"seq": sequence})
    headers = b64decode(found["message"]["hdrs"]).decode()
    return headers.split("ce-subject: ")[1].split("\r")[0]


async def _status(port: int) -> dict[str, Any]:
    async with httpx.AsyncClient(timeout=5) as http:
        found: dict[str, Any] = (await http.get(f"http://127.0.0.1:{port}/status")).json()
    return found


async def _leads(port: int, *roles: str) -> bool:
    with suppress(httpx.TransportError):
        return bool((await _status(port))["leads"] == list(roles))
    return False


async def _lags(port: int, events: float) -> bool:
    return bool((await _status(port))["lags"] == {"outbox": events})


async def test_long_poll_is_woken_in_every_replica(bus: MakeBus) -> None:
    buses = [await bus("lease") for _ in range(2)]
    here, there = (Waiting(asyncio.Event(), partial(one.nudge, WAITING)) for one in buses)
    await buses[1].listen(WAITING, there.hear)
    looked = asyncio.Event()
    answers: list[str | None] = [None, "work"]

    async def look() -> str | None:
        looked.set()
        return answers.pop(0)

    waiting = asyncio.create_task(there.until("lease-1", look, 60))
    await looked.wait()
    link = buses[1]._link
    assert link is not None
    await link.client.flush()
    here.wake("another")
    here.wake("lease-1")
    assert await asyncio.wait_for(waiting, 5) == "work"
