"""An event on the wire: CloudEvents 1.0 in NATS binary mode (headers, and a JSON body).

`Fl-Pos: <lo>:<hi>:<gpos>` is the relay's mark: the window of transactions that the event was
read in, and its place in it. A relay resumes from the last message's mark.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from flowerbed.contracts.actor import spelled
from flowerbed.contracts.event import subject
from flowerbed.events.codec import Codec
from flowerbed.events.connection import Row
from flowerbed.events.context import NO_FEDERATION, Context
from flowerbed.events.errors import FlowerbedError
from flowerbed.events.recorded import Recorded, lane_of

MARK = "Fl-Pos"
MESSAGE_ID = "Nats-Msg-Id"

_MARK = re.compile(r"(\d+):(\d+):(\d+)")


class Malformed(FlowerbedError):
    """A message without the headers that every event has."""


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """Everything below transaction `lo` is relayed, and of `lo <= xid < hi` up to `gpos`."""

    lo: int = 0
    hi: int = 0
    gpos: int = 0

    def __str__(self) -> str:
        return f"{self.lo}:{self.hi}:{self.gpos}"

    @classmethod
    def parse(cls, text: str) -> "Mark":
        match = _MARK.fullmatch(text)
        if match is None:
            raise Malformed(f"{text!r} is not a mark lo:hi:gpos")
        return cls(*(int(number) for number in match.groups()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What goes to JetStream, and what comes from it."""

    subject: str
    headers: Mapping[str, str]
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What the headers say, read before anything is decoded."""

    id: str
    type: str
    schema_version: int
    stream: str
    version: int
    tenant: str
    correlation_id: str

    @property
    def lane(self) -> str:
        return lane_of(self.correlation_id, self.stream)


def outgoing(row: Row, service: str, mark: Mark) -> Message:
    """The message of a row of `events`; the payload's bytes pass through unread."""
    meta = json.loads(row["meta"])
    correlation_id = meta.get("correlation_id", NO_FEDERATION)
    identity = str(row["id"])
    headers = {
        MESSAGE_ID: identity,
        MARK: str(mark),
        "ce-specversion": "1.0",
        "ce-id": identity,
        "ce-type": row["type"],
        "ce-source": f"/flowerbed/{service}",
        "ce-subject": row["stream"],
        "ce-time": row["recorded_at"].isoformat(),
        "content-type": "application/json",
        "tenant": row["tenant"],
        "correlationid": correlation_id,
        "streamversion": str(row["version"]),
        "schemaversion": str(row["schema_version"]),
    }
    for header, key in (("causationid", "causation_id"), ("traceparent", "traceparent")):
        if meta.get(key):
            headers[header] = meta[key]
    if actor := spelled(meta.get("actor", "")):
        headers["actor"] = actor
    return Message(
        subject=subject(row["type"], row["tenant"], correlation_id),
        headers=headers,
        data=row["data"].encode(),
    )


def envelope(message: Message) -> Envelope:
    """
    Raises:
        Malformed: a header is missing or is not what it must be.
    """
    headers = message.headers
    try:
        return Envelope(
            id=headers["ce-id"],
            type=headers["ce-type"],
            schema_version=int(headers["schemaversion"]),
            stream=headers["ce-subject"],
            version=int(headers["streamversion"]),
            tenant=headers["tenant"],
            correlation_id=headers["correlationid"],
        )
    except (KeyError, ValueError) as error:
        raise Malformed(f"message on {message.subject!r}: header {error}") from error


def context(message: Message) -> Context:
    headers = message.headers
    return Context(
        tenant=headers["tenant"],
        correlation_id=headers["correlationid"],
        causation_id=headers.get("causationid"),
        traceparent=headers.get("traceparent"),
        actor=headers.get("actor"),
    )


def received(message: Message, codec: Codec, read: Envelope | None = None) -> Recorded[object]:
    """The event as its owner recorded it; `read`: its envelope, where that is known already.

    Raises:
        Malformed, UnknownEvent, pydantic.ValidationError: this code cannot read it.
    """
    read = read or envelope(message)
    try:
        position = Mark.parse(message.headers.get(MARK, "0:0:0")).gpos
        event_id, recorded_at = UUID(read.id), datetime.fromisoformat(message.headers["ce-time"])
    except (KeyError, ValueError) as error:
        raise Malformed(f"message on {message.subject!r}: header {error}") from error
    return Recorded(
        position=position,
        stream=read.stream,
        version=read.version,
        id=event_id,
        type=read.type,
        schema_version=read.schema_version,
        event=codec.decode(read.type, read.schema_version, message.data),
        context=context(message),
        recorded_at=recorded_at,
    )
