"""Parts of a backup on real servers: the cut, the tables, and what lies in JetStream alone."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from flowerbed.contracts.topology import SUBMISSION_SUBJECT, SUBMISSIONS
from flowerbed.embedded.backup import submissions
from flowerbed.embedded.backup.cut import cut
from flowerbed.embedded.backup.tables import dump, load
from flowerbed.embedded.credentials import Credentials
from flowerbed.embedded.databases import connect
from flowerbed.embedded.layout import Layout
from flowerbed.embedded.setup import Setup
from flowerbed.embedded.shape import Shape
from flowerbed.events.jetstream import Bus, ensure_topology
from flowerbed.events.message import Mark, Message
from flowerbed.events.outbox import Outbox
from tests.support.garden import ROSES, TULIPS, Sown, Watered, store
from tests.support.servers import MakeDatabase, NatsServer, PostgresServer, ServiceDatabase


def setup_of(tmp_path: Path, **servers: Any) -> Setup:
    """As of a stack that has these servers."""
    nats, postgres = servers.get("nats"), servers.get("postgres")
    credentials = Credentials(
        stack_id="test",
        postgres={} if postgres is None else {"postgres": postgres.password},
        nats={} if nats is None else nats.passwords,
        s3_access_key="", s3_secret_key="", s3_signing_keys={}, internal_token="", api_token="",
    )  # fmt: skip
    ports = {name: server.port for name, server in servers.items()}
    return Setup(Layout.at(tmp_path), credentials, ports, Shape())


async def pass_on(first: ServiceDatabase, second: ServiceDatabase, done: asyncio.Event) -> None:
    """Record a fact in one database, then the cursor that has seen it in the other."""
    version = 0
    while not done.is_set():
        async with first.database.transaction("roses") as tx:
            event = Watered(litres=1) if version else Sown(seed="a")
            await store.append(tx, "bed-1", [event], expected=version, context=ROSES)
        version += 1
        async with second.database.transaction("roses") as tx:
            await tx.execute(
                "INSERT INTO cursors (consumer, stream, version, tenant)"
                " VALUES ('beds', 'bed-1', $1, 'roses')"
                " ON CONFLICT (consumer, stream) DO UPDATE SET version = EXCLUDED.version",
                version,
            )


async def test_no_cursor_of_a_cut_is_ahead_of_the_facts(
    tmp_path: Path, postgres_server: PostgresServer, service_database: MakeDatabase
) -> None:
    first, second = await service_database("lease"), await service_database("orchestrator")
    names = first.address.name, second.address.name
    done = asyncio.Event()
    writing = asyncio.create_task(pass_on(first, second, done))
    gaps = []
    for _ in range(10):
        async with cut(setup_of(tmp_path, postgres=postgres_server), names) as databases:
            await asyncio.sleep(0.02)  # what is written now is not in it
            seen = await databases[names[1]].fetchval(
                "SELECT coalesce(max(version), 0) FROM cursors"
            )
            facts = await databases[names[0]].fetchval("SELECT count(*) FROM events")
            gaps.append(facts - seen)
    done.set()
    await writing
    assert set(gaps) <= {0, 1}


async def test_a_cut_waits_for_who_writes_and_ends_nobody(
    tmp_path: Path, postgres_server: PostgresServer, service_database: MakeDatabase
) -> None:
    made = await service_database("lease")
    name = made.address.name
    setup = setup_of(tmp_path, postgres=postgres_server)

    async def count() -> int:
        async with cut(setup, (name,)) as databases:
            found: int = await databases[name].fetchval("SELECT count(*) FROM events")
            return found

    async with made.database.transaction("roses") as tx:
        # In the other order than the cut asks for its locks.
        await tx.execute("LOCK TABLE cursors IN ROW EXCLUSIVE MODE")
        counting = asyncio.create_task(count())
        await asyncio.sleep(0.2)
        await store.append(tx, "bed-1", [Sown(seed="a")], expected=0, context=ROSES)
    assert await counting == 1


async def test_loaded_tables_are_the_dumped_ones_and_can_be_relayed(
    tmp_path: Path, postgres_server: PostgresServer, service_database: MakeDatabase
) -> None:
    made, new = await service_database("lease"), await service_database("lease")
    for number, context in enumerate((ROSES, TULIPS, ROSES)):
        async with made.database.transaction(context.tenant) as tx:
            await store.append(
                tx, f"bed-{number}", [Sown(seed="ä\t\\N"), Watered(litres=2)],
                expected=0, context=context,
            )  # fmt: skip
    async with made.database.transaction("roses") as tx:
        await tx.execute("INSERT INTO relay_marks VALUES ('FL_LEASE', '900:901:5', 5)")
    (tmp_path / "lease").mkdir()
    setup = setup_of(tmp_path, postgres=postgres_server)
    old_admin = await connect(setup, "postgres", made.address.name)
    new_admin = await connect(setup, "postgres", new.address.name)
    try:
        await new_admin.execute("SELECT pg_current_xact_id()")
        dumped = await dump(old_admin, tmp_path, tmp_path / "lease")
        await load(new_admin, dumped, tmp_path)
        both = [await _rows(one) for one in (old_admin, new_admin)]
        assert both[0] == both[1]
        assert len(both[0]) == 6
        assert await new_admin.fetchval("SELECT count(*) FROM relay_marks") == 0
    finally:
        await old_admin.close()
        await new_admin.close()
    outbox = Outbox(new.database)
    horizon = await outbox.horizon(0)
    window = await outbox.page(Mark(0, horizon.hi, 0), 100)
    assert [row["gpos"] for row in window] == [row["gpos"] for row in both[0]]
    async with new.database.transaction("roses") as tx:
        (one,) = await store.append(tx, "bed-9", [Sown(seed="b")], expected=0, context=ROSES)
    assert one.position > both[0][-1]["gpos"]


async def _rows(admin: Any) -> list[dict[str, Any]]:
    rows = await admin.fetch(
        "SELECT gpos, stream, version, id, type, tenant, data, meta, recorded_at"
        " FROM events ORDER BY gpos"
    )
    return [dict(row) for row in rows]


@pytest.fixture
async def last_place(nats_server: NatsServer, fresh_streams: Bus) -> int:
    info = await fresh_streams.api(f"STREAM.INFO.{SUBMISSIONS}", {})
    return int(info["state"]["last_seq"])


async def test_submissions_that_nobody_took_up_are_published_again(
    tmp_path: Path, nats_server: NatsServer, fresh_streams: Bus, last_place: int
) -> None:
    setup = setup_of(tmp_path, nats=nats_server)
    key = str(uuid4())
    async with submissions.connected(setup, "submitter") as bus:
        for headers in ({}, {"Nats-Msg-Id": key, "ce-id": "a: b"}):
            await bus.publish(Message(subject=SUBMISSION_SUBJECT, headers=headers, data=b"{}"))
    taken_up = await submissions.acknowledged(setup)
    waiting = await submissions.read_after(setup, taken_up)
    assert [one.sequence for one in waiting.submissions] == [last_place + 1, last_place + 2]
    assert submissions.from_json(submissions.to_json(waiting)) == waiting

    await fresh_streams.api(f"STREAM.DELETE.{SUBMISSIONS}", {})
    await ensure_topology(fresh_streams)
    await submissions.publish_again(setup, waiting)
    again = await submissions.read_after(setup, 0)
    # A spec without an id is named by its place: it keeps the name, and no later one gets it.
    assert [one.sequence for one in again.submissions] == [last_place + 3, last_place + 4]
    assert [one.headers["Nats-Msg-Id"] for one in again.submissions] == [
        f"seq-{last_place + 1}",
        key,
    ]
    assert again.submissions[1].headers["ce-id"] == "a: b"
    await ensure_topology(fresh_streams)  # as at every start
    await fresh_streams.api(f"STREAM.DELETE.{SUBMISSIONS}", {})
