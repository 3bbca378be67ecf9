"""Fill the checker's evidence from a stack and its sites: only reads, as each server's reader."""

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # has no stubs
import boto3
import nats
from botocore.config import Config
from botocore.exceptions import ClientError
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from flowerbed.contracts.topology import SERVICES, STREAMS, inbox_prefix
from flowerbed.embedded.stack import Stack
from scripts.faults.evidence import Evidence, PublishedEvent, Run, StoredEvent
from scripts.faults.replay import table_diffs

QUIET_SECONDS = 60.0
PAGE = 500
_WITH_OBJECTS = ("fl.update.accepted", "fl.artifact.recorded")


async def gather(
    stack: Stack,
    homes: Mapping[str, Path],
    *,
    expected: Mapping[str, str] | None = None,
    gaps: frozenset[str] = frozenset(),
) -> Evidence:
    """`homes`: the state directory of the runner of each site, by name."""
    await until_quiet(stack)
    stores = {service: await stored_events(stack, service) for service in SERVICES}
    rows = await _fetch(stack, "orchestrator", "SELECT federation_id FROM deadlines")
    uris = sorted(set(_uris(stores)))
    return Evidence(
        stores=stores,
        jetstreams={s.name: await published_events(stack, s.name) for s in STREAMS},
        cursors={service: await _cursors(stack, service) for service in SERVICES},
        deadlines=frozenset(row["federation_id"] for row in rows),
        objects=await asyncio.to_thread(objects, stack, uris),
        runs=[run for site, home in homes.items() for run in runs(site, home)],
        dead_letters={
            service: (await _fetch(stack, service, "SELECT count(*) FROM dead_letters"))[0][0]
            for service in SERVICES
        },
        tables=[diff for service in SERVICES for diff in await table_diffs(stack, service)],
        expected=expected or {},
        gaps=gaps,
    )


async def until_quiet(stack: Stack) -> None:
    """Until nothing was recorded for a while and the gateway has every event, or time is up."""
    end = asyncio.get_running_loop().time() + QUIET_SECONDS
    before: list[int] = []
    while asyncio.get_running_loop().time() < end:
        count = "SELECT count(*) FROM events"
        counts = [(await _fetch(stack, service, count))[0][0] for service in SERVICES]
        *owned, copied = counts
        if counts == before and sum(owned) == copied:
            return
        before = counts
        await asyncio.sleep(1.5)


async def stored_events(stack: Stack, service: str) -> list[StoredEvent]:
    rows = await _fetch(
        stack, service, "SELECT gpos, stream, version, id, type, data, meta FROM events"
        " ORDER BY gpos",
    )  # fmt: skip
    return [
        StoredEvent(
            place=row["gpos"],
            stream=row["stream"],
            version=row["version"],
            id=str(row["id"]),
            type=row["type"],
            federation_id=json.loads(row["meta"]).get("correlation_id", "_"),
            data=json.loads(row["data"]),
        )
        for row in rows
    ]


async def published_events(stack: Stack, jetstream: str) -> list[PublishedEvent]:
    """Every message of the stream, through a consumer that goes when we do."""
    access = stack.nats_user("admin")
    client = await nats.connect(
        access.url.split(","),
        user=access.user,
        password=access.password,
        inbox_prefix=inbox_prefix("admin").encode(),
    )
    try:
        js = client.jetstream()
        total = (await js.stream_info(jetstream)).state.messages
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.NONE, inactive_threshold=30
        )
        made = await js.add_consumer(jetstream, config)
        pull = await js.pull_subscribe_bind(made.name, jetstream)
        found: list[PublishedEvent] = []
        while len(found) < total:
            try:
                messages = await pull.fetch(PAGE, timeout=5)
            except NatsTimeout:
                break
            found += [_published(message) for message in messages]
        return found
    finally:
        await client.close()


def objects(stack: Stack, uris: Sequence[str]) -> dict[str, str | None]:
    access = stack.s3
    client = boto3.client(
        "s3",
        endpoint_url=access.endpoint,
        aws_access_key_id=access.access_key,
        aws_secret_access_key=access.secret_key,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )
    found: dict[str, str | None] = {}
    for uri in uris:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        try:
            body = client.get_object(Bucket=bucket, Key=key)["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("NoSuchKey", "404"):
                raise
            found[uri] = None
        else:
            found[uri] = hashlib.sha256(body).hexdigest()
    return found


def runs(site: str, home: Path) -> list[Run]:
    with sqlite3.connect(f"file:{home / 'journal.sqlite3'}?mode=ro", uri=True) as connection:
        rows = connection.execute(
            "SELECT work, exchange, finished_at, coalesce(resumed, 0) + coalesce(restarted, 0)"
            " FROM runs"
        ).fetchall()
    return [
        Run(site=site, work=work, exchange=exchange, is_finished=at is not None, n_again=n_again)
        for work, exchange, at, n_again in rows
    ]


def _published(message: Any) -> PublishedEvent:
    headers = message.headers
    return PublishedEvent(
        place=message.metadata.sequence.stream,
        stream=headers["ce-subject"],
        version=int(headers["streamversion"]),
        id=headers["ce-id"],
        type=headers["ce-type"],
    )


def _uris(stores: Mapping[str, Sequence[StoredEvent]]) -> Iterator[str]:
    for service in ("aggregator", "artifact"):
        for event in stores[service]:
            artifact = event.data.get("artifact") if event.type in _WITH_OBJECTS else None
            if artifact is not None:
                yield artifact["uri"]


async def _cursors(stack: Stack, service: str) -> dict[str, int]:
    query = "SELECT stream, max(version) AS version FROM cursors GROUP BY stream"
    return {row["stream"]: row["version"] for row in await _fetch(stack, service, query)}


async def _fetch(stack: Stack, service: str, query: str) -> list[Any]:
    connection = await asyncpg.connect(stack.postgres_dsn(service))
    try:
        return list(await connection.fetch(query))
    finally:
        await connection.close()
