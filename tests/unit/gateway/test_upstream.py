"""A command finds a replica that answers, and is never given to two."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import pytest
from pydantic import SecretStr, TypeAdapter

from flowerbed.events.errors import Unavailable
from flowerbed.gateway import upstream as upstream_module
from flowerbed.gateway.settings import Urls
from flowerbed.gateway.upstream import Upstream

Mood = Literal["well", "paused", "breaks"]


class Replica:
    """`paused` accepts and never answers; `breaks` is healthy, and hangs up on anything else."""

    def __init__(self, mood: Mood) -> None:
        self.mood = mood
        self.asked: list[str] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                if self.mood == "paused":
                    await asyncio.sleep(60)
                method, path, *_ = request.decode().split(" ")
                if path != "/healthz":
                    self.asked.append(f"{method} {path}")
                    if self.mood == "breaks":
                        return
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def replicas(*moods: Mood) -> AsyncIterator[list[Replica]]:
    found = [Replica(mood) for mood in moods]
    servers = [await asyncio.start_server(one.serve, "127.0.0.1", 0) for one in found]
    for one, server in zip(found, servers, strict=True):
        one.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield found
    finally:
        for server in servers:
            server.close()


def nobody() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


@asynccontextmanager
async def upstream(*urls: str) -> AsyncIterator[Upstream]:
    one = Upstream("lease", urls, SecretStr("token"))
    try:
        yield one
    finally:
        await one.close()


async def test_dead_replica_is_passed_over_and_the_well_one_kept_to() -> None:
    async with (
        replicas("well", "well") as (first, second),
        upstream(nobody(), first.url, second.url) as lease,
    ):
        for _ in range(3):
            await lease.forward("POST", "/internal/invites", body={})

    assert len(first.asked) == 3
    assert not second.asked


async def test_paused_replica_never_hears_of_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_module, "HEALTH_PATIENCE", 0.05)
    async with (
        replicas("paused", "well") as (paused, well),
        upstream(paused.url, well.url) as lease,
    ):
        await lease.forward("POST", "/internal/invites", body={})

    assert not paused.asked
    assert well.asked == ["POST /internal/invites"]


async def test_command_that_may_have_arrived_is_not_sent_again() -> None:
    async with (
        replicas("breaks", "well") as (broken, well),
        upstream(broken.url, well.url) as lease,
    ):
        with pytest.raises(Unavailable, match="the lease service did not answer"):
            await lease.forward("POST", "/internal/invites", body={})

    assert broken.asked == ["POST /internal/invites"]
    assert not well.asked


async def test_question_is_put_to_the_next_one() -> None:
    async with (
        replicas("breaks", "well") as (broken, well),
        upstream(broken.url, well.url) as lease,
    ):
        assert await lease.fetch("GET", "/internal/dead-letters") == {}

    assert well.asked == broken.asked == ["GET /internal/dead-letters"]


async def test_nobody_answers() -> None:
    async with upstream(nobody(), nobody()) as lease:
        with pytest.raises(Unavailable, match="did not answer: ConnectError"):
            await lease.fetch("GET", "/internal/dead-letters")


@pytest.mark.parametrize("told", ["http://a,http://b", ["http://a", "http://b"]])
def test_addresses_are_told_as_a_list_or_with_commas(told: object) -> None:
    assert TypeAdapter(Urls).validate_python(told) == ("http://a", "http://b")
