"""FederationSpecs that were published and not taken up yet: what lies in JetStream alone.

Everything else there is filled again from the event stores.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from flowerbed.contracts.topology import SUBMISSIONS
from flowerbed.embedded.errors import EmbeddedError
from flowerbed.embedded.setup import Setup
from flowerbed.embedded.streams import declare_streams

if TYPE_CHECKING:
    from flowerbed.events.jetstream import Bus

READER = "orchestrator"
MESSAGE_ID = "Nats-Msg-Id"
NO_MESSAGE = 10037


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """`sequence`: its place in the stream, which names a spec that has no id of its own."""

    sequence: int
    subject: str
    headers: dict[str, str]
    data: str
    """Base64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """`last`: the highest place that was ever given, so that none is given twice."""

    last: int
    submissions: tuple[Submission, ...]


async def acknowledged(setup: Setup) -> int:
    """Up to where submissions are events by now; ask before the databases are cut."""
    async with connected(setup, "admin") as bus:
        info = await _asked(bus, f"CONSUMER.INFO.{SUBMISSIONS}.{READER}", {})
    return int(info["ack_floor"]["stream_seq"])


async def read_after(setup: Setup, sequence: int) -> Waiting:
    """What was published behind that place; ask after the cut, and nothing is missed."""
    found = []
    async with connected(setup, "admin") as bus:
        info = await _asked(bus, f"STREAM.INFO.{SUBMISSIONS}", {})
        last = int(info["state"]["last_seq"])
        for place in range(max(sequence + 1, int(info["state"]["first_seq"])), last + 1):
            answer = await bus.api(f"STREAM.MSG.GET.{SUBMISSIONS}", {"seq": place})
            if "error" not in answer:
                found.append(_submission(answer["message"]))
            elif answer["error"].get("err_code") != NO_MESSAGE:
                raise EmbeddedError(f"nats refused: {answer['error'].get('description')}")
    return Waiting(last=last, submissions=tuple(found))


async def publish_again(setup: Setup, waiting: Waiting) -> None:
    """Into a new stream, whose places begin behind those that were given before."""
    from flowerbed.events.message import Message

    async with connected(setup, "admin") as bus:
        info = await _asked(bus, f"STREAM.INFO.{SUBMISSIONS}", {})
        if waiting.last and info["state"]["last_seq"] == 0:
            await _asked(bus, f"STREAM.DELETE.{SUBMISSIONS}", {})
            config = {**info["config"], "first_seq": waiting.last + 1}
            await _asked(bus, f"STREAM.CREATE.{SUBMISSIONS}", config)
    await declare_streams(setup)
    async with connected(setup, "submitter") as bus:
        for one in waiting.submissions:
            headers = {MESSAGE_ID: f"seq-{one.sequence}", **one.headers}
            message = Message(subject=one.subject, headers=headers, data=b64decode(one.data))
            await bus.publish(message)


def to_json(waiting: Waiting) -> str:
    return json.dumps(asdict(waiting), indent=1) + "\n"


def from_json(text: str) -> Waiting:
    content = json.loads(text)
    submissions: Sequence[dict[str, Any]] = content["submissions"]
    return Waiting(
        last=content["last"], submissions=tuple(Submission(**one) for one in submissions)
    )


@asynccontextmanager
async def connected(setup: Setup, user: str) -> AsyncIterator["Bus"]:
    from flowerbed.events.jetstream import Bus

    urls = ",".join(f"nats://{address}" for address in setup.told("nats"))
    bus = Bus(urls, user, setup.credentials.nats[user])
    await bus.start()
    try:
        await bus.wait_connected(10)
        yield bus
    finally:
        await bus.close()


async def _asked(bus: "Bus", operation: str, request: dict[str, Any]) -> dict[str, Any]:
    answer = await bus.api(operation, request)
    if "error" in answer:
        raise EmbeddedError(f"nats refused {operation}: {answer['error'].get('description')}")
    return answer


def _submission(message: dict[str, Any]) -> Submission:
    lines = b64decode(message.get("hdrs", "")).decode().split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if line)
    return Submission(
        sequence=int(message["seq"]),
        subject=message["subject"],
        headers={name: value.strip() for name, _, value in pairs},
        data=message.get("data", b64encode(b"").decode()),
    )
