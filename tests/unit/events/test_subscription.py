"""A subscription hands out everything once, in order, or says that it cannot."""

import asyncio
import json
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowerbed.events.errors import Unavailable
from flowerbed.events.subscription import Subscription
from tests.support.servers import eventually


def token(place: int, sequence: int, attempt: int = 1) -> str:
    """Where the answer to a delivery goes (ADR-15)."""
    return f"$JS.ACK.FL_LEASE.gateway.{attempt}.{sequence}.{place}.1700000000000000000.0"


@dataclass
class Client:
    """What a subscription uses of a NATS client."""

    published: list[tuple[str, bytes]] = field(default_factory=list)
    is_unsubscribed: bool = False

    def new_inbox(self) -> str:
        return "_INBOX.x"

    async def subscribe(self, subject: str, cb: Any) -> "Client":
        self.hear = cb
        return self

    async def unsubscribe(self) -> None:
        self.is_unsubscribed = True

    async def publish(self, subject: str, data: bytes, reply: str = "") -> None:
        self.published.append((subject, data))

    async def _send_command(self, encoded: bytes) -> None:
        """`PUB subject size`, and what is said, a line each."""
        lines = encoded.decode().splitlines()
        for head, data in zip(lines[::2], lines[1::2], strict=True):
            name, subject, size = head.split()
            assert (name, int(size)) == ("PUB", len(data))
            self.published.append((subject, data.encode()))

    async def _flush_pending(self) -> None:
        return None

    async def flush(self, timeout: float) -> None:
        return None

    async def deliver(self, place: int, sequence: int, attempt: int = 1) -> None:
        await self.hear(
            SimpleNamespace(
                subject="s", data=b"", headers={}, reply=token(place, sequence, attempt)
            )
        )

    async def status(self, code: str, pending: int = 0, description: str = "") -> None:
        headers = {
            "Status": code,
            "Nats-Pending-Messages": str(pending),
            "Description": description,
        }
        await self.hear(SimpleNamespace(subject="s", data=b"", headers=headers, reply=""))

    @property
    def asked(self) -> list[int]:
        return [json.loads(data)["batch"] for subject, data in self.published if "NEXT" in subject]

    def answers(self, answer: bytes) -> list[str]:
        return [subject for subject, data in self.published if data == answer]


async def opened(request: int = 10, expires: float = 5.0) -> tuple[Client, Subscription]:
    client = Client()
    closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    subscription = Subscription(
        "FL_LEASE", "gateway", client, closed, request=request, expires=expires
    )
    await subscription.open()
    return client, subscription


async def test_more_is_asked_for_before_it_runs_dry() -> None:
    client, subscription = await opened(request=10)
    for sequence in range(1, 7):
        await client.deliver(sequence, sequence)
    assert len(await subscription.next_batch(4)) == 4
    assert client.asked == [10, 6]
    assert len(await subscription.next_batch(4)) == 2
    assert client.asked == [10, 6]


async def test_expired_request_is_renewed() -> None:
    client, _ = await opened(request=10)
    await client.status("408", pending=10)
    await client.status("100")
    assert client.asked == [10, 10]


async def test_forgotten_request_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowerbed.events.subscription.GRACE", 0.0)
    client, subscription = await opened(expires=0.01)
    waiting = asyncio.create_task(subscription.next_batch(1))
    await eventually(lambda: len(client.asked) >= 2, "asked again")
    await client.deliver(1, 1)
    assert len(await waiting) == 1


async def test_server_that_refuses_ends_the_session() -> None:
    client, subscription = await opened()
    await client.status("409", description="Consumer Deleted")
    with pytest.raises(Unavailable, match="FL_LEASE/gateway: 409 Consumer Deleted"):
        await subscription.next_batch(1)


async def test_connection_that_closes_ends_the_session() -> None:
    client, subscription = await opened()
    waiting = asyncio.create_task(subscription.next_batch(1))
    await asyncio.sleep(0)
    subscription._closed.set_result(None)
    with pytest.raises(Unavailable, match="nats closed the connection"):
        await waiting
    with pytest.raises(Unavailable):
        await subscription.ack([SimpleNamespace(token="t", sequence=1)])  # type: ignore[list-item]
    await subscription.close()
    assert not client.is_unsubscribed


async def test_interrupted_wait_returns_nothing_and_the_rest_is_given_back() -> None:
    client, subscription = await opened()
    waiting = asyncio.create_task(subscription.next_batch(1))
    await asyncio.sleep(0)
    subscription.interrupt()
    assert await waiting == ()
    await client.deliver(1, 1)
    assert await subscription.next_batch(1) == ()
    await subscription.close()
    assert client.answers(b"-NAK") == [token(1, 1)]


async def test_delivery_again_is_acknowledged_only_if_it_was_handled() -> None:
    client, subscription = await opened()
    await client.deliver(1, 1)
    await client.deliver(2, 2)
    batch = await subscription.next_batch(2)
    await subscription.ack(batch[:1])
    await client.deliver(3, 1, attempt=2)
    await client.deliver(4, 2, attempt=2)
    assert client.answers(b"+ACK") == [token(1, 1), token(3, 1, attempt=2)]


@given(
    script=st.lists(
        st.tuples(st.sampled_from(["new", "again", "lost"]), st.integers(1, 5)), max_size=30
    )
)
async def test_what_is_handed_out_has_no_gap(script: list[tuple[str, int]]) -> None:
    client, subscription = await opened(request=100)
    sent = place = 0
    for what, back in script:
        place += 1
        if what == "again" and sent:
            await client.deliver(place, max(1, sent - back), attempt=2)
            continue
        sent += 1
        if what != "lost":
            await client.deliver(place, sent)
    handed: list[int] = []
    try:
        while len(handed) < sent and (subscription._queue or subscription._trouble):
            handed += [one.sequence for one in await subscription.next_batch(2)]
    except Unavailable:
        assert "lost" in [what for what, _ in script]
        assert client.is_unsubscribed
    assert handed == list(range(1, len(handed) + 1))
