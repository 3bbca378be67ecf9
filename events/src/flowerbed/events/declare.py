"""Declare the JetStream streams and durables of `contracts.topology`; the deployer runs it.

Never a subscriber: a subscriber's own declaration would overwrite a stream's settings.
"""

import asyncio
from datetime import timedelta
from typing import Any, Protocol

from flowerbed.contracts.topology import (
    DURABLES,
    STORED_SUBJECT,
    STREAMS,
    SUBMISSION_SUBJECT,
    SUBMISSIONS,
)
from flowerbed.events.errors import FlowerbedError

NAME_IN_USE = 10058
ACK_WAIT = 30.0
SUBMISSION_ACK_WAIT = 5.0
"""Seconds. Replicas share this durable, so another one gets what a dead one had only then."""

MAX_ACK_PENDING = 5000


class Api(Protocol):
    async def api(self, operation: str, request: dict[str, Any]) -> dict[str, Any]: ...


async def ensure_topology(
    bus: Api, *, max_age: timedelta = timedelta(days=7), replicas: int = 1
) -> None:
    """Create or update every stream and durable; needs a user who may administer JetStream."""
    submissions = (SUBMISSION_SUBJECT, f"{SUBMISSION_SUBJECT}.>")
    await asyncio.gather(
        *(
            _stream(bus, one.name, one.subjects, max_age, replicas, stored_subject=STORED_SUBJECT)
            for one in STREAMS
        ),
        _stream(bus, SUBMISSIONS, submissions, max_age, replicas),
    )
    await asyncio.gather(
        *(_durables(bus, one.name) for one in STREAMS),
        _durable(bus, SUBMISSIONS, "orchestrator", submissions, SUBMISSION_ACK_WAIT),
    )


async def retire_durables(bus: Api) -> None:
    """Delete what only an earlier release read, when none of its services runs any more."""
    wanted = {(one.stream, one.name) for one in DURABLES}
    for stream in STREAMS:
        answer = await bus.api(f"CONSUMER.NAMES.{stream.name}", {})
        _check(answer, stream.name)
        for name in answer["consumers"] or ():
            if (stream.name, name) not in wanted:
                deleted = await bus.api(f"CONSUMER.DELETE.{stream.name}.{name}", {})
                _check(deleted, f"{stream.name}/{name}")


async def _stream(
    bus: Api,
    name: str,
    subjects: tuple[str, ...],
    max_age: timedelta,
    replicas: int,
    stored_subject: dict[str, str] | None = None,
) -> None:
    config: dict[str, Any] = {
        "name": name,
        "subjects": list(subjects),
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "max_age": int(max_age.total_seconds() * 1e9),
        "duplicate_window": int(120e9),
        "num_replicas": replicas,
        "allow_atomic": True,
        "allow_direct": True,
        "deny_delete": True,
        "deny_purge": True,
    }
    if stored_subject is not None:
        config["subject_transform"] = stored_subject
    answer = await bus.api(f"STREAM.CREATE.{name}", config)
    if answer.get("error", {}).get("err_code") == NAME_IN_USE:
        answer = await bus.api(f"STREAM.UPDATE.{name}", config)
    _check(answer, name)


async def _durables(bus: Api, stream: str) -> None:
    """One after the other: asked for all at once, a slow disk would make the last ones late."""
    for one in DURABLES:
        if one.stream == stream:
            await _durable(bus, stream, one.name, one.filter_subjects)


async def _durable(
    bus: Api, stream: str, name: str, subjects: tuple[str, ...], ack_wait: float = ACK_WAIT
) -> None:
    config = {
        "durable_name": name,
        "filter_subjects": list(subjects),
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": int(ack_wait * 1e9),
        # What cannot be handled becomes a dead letter of ours; JetStream never gives up on one.
        "max_deliver": -1,
        "max_ack_pending": MAX_ACK_PENDING,
        "replay_policy": "instant",
    }
    request = {"stream_name": stream, "config": config}
    _check(await bus.api(f"CONSUMER.DURABLE.CREATE.{stream}.{name}", request), f"{stream}/{name}")


def _check(answer: dict[str, Any], name: str) -> None:
    if "error" in answer:
        raise FlowerbedError(f"jetstream refused {name}: {answer['error'].get('description')}")
