"""Each NATS user may say and hear what the topology gives it, and nothing else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
import nats.errors
import pytest
from nats.aio.client import Client

from flowerbed.contracts.topology import DURABLES, STREAMS, SUBMISSIONS, inbox_prefix
from flowerbed.embedded.stack import Stack


class Visitor:
    """A connection that remembers what it was refused."""

    def __init__(self) -> None:
        self.refusals: asyncio.Queue[str] = asyncio.Queue()

    async def on_error(self, error: Exception) -> None:
        await self.refusals.put(str(error).lower())

    async def refusal(self) -> str:
        return await asyncio.wait_for(self.refusals.get(), 5)


@asynccontextmanager
async def connected(stack: Stack, user: str) -> AsyncIterator[tuple[Client, Visitor]]:
    access, visitor = stack.nats_user(user), Visitor()
    client = await nats.connect(
        access.url,
        user=access.user,
        password=access.password,
        inbox_prefix=inbox_prefix(user).encode(),
        error_cb=visitor.on_error,
        allow_reconnect=False,
    )
    try:
        yield client, visitor
    finally:
        await client.close()


async def test_streams_and_durables_of_the_topology_exist(servers: Stack) -> None:
    async with connected(servers, "admin") as (client, _):
        js = client.jetstream()
        for stream in (*(stream.name for stream in STREAMS), SUBMISSIONS):
            assert (await js.stream_info(stream)).config.storage == "file"
        for durable in DURABLES:
            assert await js.consumer_info(durable.stream, durable.name)


async def test_service_publishes_its_own_facts(servers: Stack) -> None:
    async with connected(servers, "lease") as (client, _):
        ack = await client.jetstream().publish("fl.client.joined.acme._", b"{}")
        assert ack.stream == "FL_LEASE"


@pytest.mark.parametrize(
    ("user", "subject"),
    [
        ("lease", "fl.round.started.acme._"),
        ("gateway", "fl.client.joined.acme._"),
        ("aggregator", "fl.federation.submitted.acme.one"),
        ("submitter", "fl.federation.created.acme._"),
        ("submitter", "$JS.API.STREAM.INFO.FL_LEASE"),
        ("artifact", "$JS.API.STREAM.DELETE.FL_ARTIFACT"),
        ("admin", "fl.client.joined.acme._"),
    ],
)
async def test_nobody_publishes_what_is_not_his(servers: Stack, user: str, subject: str) -> None:
    async with connected(servers, user) as (client, visitor):
        await client.publish(subject, b"{}")
        await client.flush()
        assert "permissions violation for publish" in await visitor.refusal()


@pytest.mark.parametrize("subject", ["fl.>", ">", "_INBOX.orchestrator.>"])
async def test_submitter_reads_nothing(servers: Stack, subject: str) -> None:
    async with connected(servers, "submitter") as (client, visitor):
        await client.subscribe(subject)
        await client.flush()
        assert "permissions violation for subscription" in await visitor.refusal()


async def test_submitter_may_submit(servers: Stack) -> None:
    async with connected(servers, "submitter") as (client, _):
        ack = await client.jetstream().publish("fl.federation.submitted.acme.one", b"{}")
        assert ack.stream == SUBMISSIONS


async def test_wrong_password_is_refused(servers: Stack) -> None:
    with pytest.raises(nats.errors.Error, match=r"(?i)authorization"):
        await nats.connect(
            servers.nats_url, user="lease", password="guessed", allow_reconnect=False
        )
