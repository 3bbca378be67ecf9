"""Recorded events in, rows out; whichever service's events arrive first."""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from flowerbed.contracts.apps import AppPushed, bundle_uri
from flowerbed.contracts.event import Event
from flowerbed.contracts.federation import (
    FederationCancelled,
    FederationCreated,
    FederationFailed,
    FederationPaused,
    FederationResumed,
)
from flowerbed.contracts.problems import parse_spec
from flowerbed.events.connection import Connection
from flowerbed.events.rebuild import rebuild
from flowerbed.events.recorded import Recorded
from flowerbed.events.store import EventStore
from flowerbed.gateway import MIGRATIONS
from flowerbed.gateway.consumers import codec
from flowerbed.gateway.projections import PROJECTIONS
from tests.integration.gateway.story import (
    CLIENTS,
    FED,
    NOON,
    OTHER,
    REFUSED,
    TENANT,
    Story,
    declining_story,
    document,
    ref,
    steered_story,
    whole_story,
)
from tests.support.servers import MakeDatabase, ServiceDatabase

TABLES = tuple(table for projection in PROJECTIONS for table in projection.tables)
STORE = EventStore(codec, PROJECTIONS)
Rows = dict[str, list[dict[str, Any]]]


async def _keep(made: ServiceDatabase, told: Sequence[Recorded[Event]]) -> None:
    for tenant in (TENANT, OTHER):
        async with made.database.transaction(tenant) as tx:
            for one in told:
                if one.context.tenant == tenant:
                    assert await STORE.record(tx, one)


async def _rows(connection: Connection) -> Rows:
    return {
        table: sorted(
            [dict(row) for row in await connection.fetch(f"SELECT * FROM {table}")], key=repr
        )
        for table in TABLES
    }


@pytest.fixture
async def gateway_database(service_database: MakeDatabase) -> ServiceDatabase:
    return await service_database("gateway", [MIGRATIONS])


async def _folded(made: ServiceDatabase, story: Story) -> Rows:
    await _keep(made, story.told)
    async with made.database.read_all() as connection:
        return await _rows(connection)


async def test_a_whole_federation_folds_into_what_people_ask_about(
    gateway_database: ServiceDatabase,
) -> None:
    rows = await _folded(gateway_database, whole_story())

    federations = {row["federation_id"]: row for row in rows["federations"]}
    done = federations[FED]
    assert (done["status"], done["name"], done["n_rounds"]) == ("completed", "demo", 2)
    assert (done["round_number"], done["n_rounds_completed"]) == (2, 2)
    assert done["final_sha256"] == ref("two").sha256 and done["base_sha256"] == ref("base").sha256
    assert done["created_at"] < done["started_at"] < done["ended_at"] == done["updated_at"]
    refused = federations[REFUSED]
    assert (refused["tenant"], refused["status"]) == (OTHER, "rejected")
    assert '"spec.num_rounds"' in refused["problems"]

    rounds = {(row["round_number"], row["attempt"]): row for row in rows["rounds"]}
    assert {place: row["status"] for place, row in rounds.items()} == {
        (1, 1): "failed",
        (1, 2): "completed",
        (2, 1): "completed",
    }
    assert rounds[1, 1]["reason"] == "0 of 2 updates"
    assert [rounds[place]["n_updates"] for place in sorted(rounds)] == [None, 3, 3]
    assert rounds[2, 1]["train_seconds"] == 1.5 and rounds[2, 1]["evaluate_seconds"] == 0.25
    assert rounds[2, 1]["checkpoint_sha256"] == ref("two").sha256


async def test_what_a_site_measured_stays_with_its_update(
    gateway_database: ServiceDatabase,
) -> None:
    rows = await _folded(gateway_database, whole_story())
    names = ("download_seconds", "upload_seconds", "n_tokens", "joules", "joules_reason")
    measured = {
        (row["client_id"], row["exchange"]): tuple(row[name] for name in names)
        for row in rows["round_updates"]
        if row["round_number"] == 2
    }
    a, b, c = CLIENTS
    assert measured[a, "train"] == (0.5, 1.5, 2000, 12.5, None)
    assert measured[b, "train"] == (0.5, 1.5, None, None, "no-counter")
    assert measured[c, "evaluate"] == (None,) * 5


async def test_an_update_ends_as_what_became_of_it(gateway_database: ServiceDatabase) -> None:
    rows = await _folded(gateway_database, whole_story())

    first = {
        row["client_id"]: row
        for row in rows["round_updates"]
        if (row["round_number"], row["attempt"]) == (1, 1)
    }
    a, b, c = (first[client] for client in CLIENTS)
    assert (a["status"], a["code"], a["detail"]) == ("failed", "app-failed", "out of memory")
    assert (b["status"], b["code"]) == ("rejected", "not-finite")
    assert (c["status"], c["code"]) == ("quarantined", "norm")
    assert [row["place"] for row in (a, b, c)] == [0, 1, 2]
    accepted = [row for row in rows["round_updates"] if row["status"] == "accepted"]
    assert len(accepted) == 12
    assert {row["n_examples"] for row in accepted} == {10, 11, 12}, "verified, not as claimed"
    assert all(row["asked_at"] < row["reported_at"] < row["decided_at"] for row in accepted)


async def test_a_client_that_declines_keeps_its_status_and_shows_why(
    gateway_database: ServiceDatabase,
) -> None:
    rows = await _folded(gateway_database, declining_story())
    found = {row["client_id"]: (row["status"], row["reason"]) for row in rows["memberships"]}
    assert found == {
        CLIENTS[0]: ("joined", ""),
        CLIENTS[1]: ("issued", "disk-full: 9 MB are free"),
    }


async def test_the_policy_shown_is_the_one_that_counts_now(
    gateway_database: ServiceDatabase,
) -> None:
    rows = await _folded(gateway_database, steered_story())
    (shown,) = rows["federations"]
    spec = json.loads(shown["spec"])["spec"]
    assert (spec["round_policy"]["quorum"], spec["round_policy"]["close_at"]) == (0.5, 2)
    assert spec["num_rounds"] == 2, "the rest of the spec is what it was"
    assert shown["join_deadline_at"] == NOON + timedelta(hours=3)
    assert shown["status"] == "running"


@pytest.mark.parametrize("seed", range(4))
async def test_who_was_replaced_is_waited_for_no_more_unless_it_had_answered(
    gateway_database: ServiceDatabase, seed: int
) -> None:
    await _keep(gateway_database, steered_story().shuffled(seed))
    async with gateway_database.database.read_all() as reader:
        rows = await _rows(reader)
    found = {row["client_id"]: (row["place"], row["status"]) for row in rows["round_updates"]}
    assert found == {
        "client-a": (0, "submitted"),
        "client-b": (1, "asked"),
        "client-c": (2, "replaced"),
        "client-4": (0, "asked"),
        "client-6": (2, "asked"),
    }


async def test_clients_memberships_and_artifacts_are_as_last_told(
    gateway_database: ServiceDatabase,
) -> None:
    rows = await _folded(gateway_database, whole_story())

    clients = {row["client_id"]: row for row in rows["clients"]}
    assert {name: row["status"] for name, row in clients.items()} == {
        "client-a": "enrolled",
        "client-b": "enrolled",
        "client-c": "revoked",
        "client-late": "invited",
        "client-r": "invited",
    }
    assert clients["client-a"]["certificate_expires_at"] > clients["client-a"]["invite_expires_at"]
    memberships = {row["client_id"]: row for row in rows["memberships"]}
    assert memberships["client-c"]["epoch"] == 2
    assert {row["status"] for row in memberships.values()} == {"released"}
    assert memberships["client-a"]["dataset"] == "hospital-client-a"
    artifacts = {(row["round_number"], row["kind"]): row for row in rows["artifacts"]}
    assert len(artifacts) == 5
    assert artifacts[2, "checkpoint"]["channels"] == ["stable"]
    assert artifacts[1, "checkpoint"]["channels"] == []
    assert artifacts[1, "checkpoint"]["revoked_reason"] == "poisoned"
    assert artifacts[1, "checkpoint"]["parents"] == [ref("base").sha256]


@pytest.mark.parametrize("seed", range(3))
async def test_the_order_between_services_makes_no_difference(
    service_database: MakeDatabase, seed: int
) -> None:
    story = whole_story()
    as_it_happened = await service_database("gateway", [MIGRATIONS])
    otherwise = await service_database("gateway", [MIGRATIONS])

    await _keep(as_it_happened, story.told)
    await _keep(otherwise, story.shuffled(seed))

    async with as_it_happened.database.read_all() as one, otherwise.database.read_all() as two:
        expected, found = await _rows(one), await _rows(two)
    for table in TABLES:
        assert found[table] == expected[table], table


async def test_a_federation_that_waits_is_resumed_to_waiting(
    gateway_database: ServiceDatabase,
) -> None:
    story = Story()
    whole = whole_story()
    story.told += [one for one in whole.told if one.stream == f"federation-{FED}"][:1]
    story.versions[f"federation-{FED}"] = 1
    story.tell(f"federation-{FED}", FederationPaused(federation_id=FED, expires_at=NOON))
    story.tell(f"federation-{FED}", FederationResumed(federation_id=FED))

    rows = await _folded(gateway_database, story)

    assert rows["federations"][0]["status"] == "created"


async def test_the_same_event_again_changes_nothing(gateway_database: ServiceDatabase) -> None:
    story = whole_story()
    before = await _folded(gateway_database, story)

    for tenant in (TENANT, OTHER):
        async with gateway_database.database.transaction(tenant) as tx:
            for one in story.told:
                if one.context.tenant == tenant:
                    assert not await STORE.record(tx, one)

    async with gateway_database.database.read_all() as connection:
        assert await _rows(connection) == before


@pytest.mark.parametrize("projection", PROJECTIONS, ids=lambda projection: projection.name)
async def test_a_rebuilt_projection_equals_the_live_one(
    gateway_database: ServiceDatabase, projection: Any
) -> None:
    story = whole_story()
    before = await _folded(gateway_database, story)

    n_events = await rebuild(await gateway_database.owner(), projection, STORE)

    assert n_events == len(story.told)
    async with gateway_database.database.read_all() as connection:
        assert await _rows(connection) == before


async def test_no_table_shows_a_tenant_the_rows_of_another(
    gateway_database: ServiceDatabase,
) -> None:
    """On every table that has tenants, the library's own too."""
    story = whole_story()
    uri = bundle_uri("flowerbed", TENANT, "a" * 64)
    pushed = AppPushed(sha256="a" * 64, size=1, uri=uri, name="n", version="1", publisher="p")
    story.tell(f"app-{TENANT}-{'a' * 64}", pushed)
    await _keep(gateway_database, story.told)
    async with gateway_database.database.transaction(TENANT) as tx:
        await tx.execute(
            "INSERT INTO submissions"
            " (tenant, submission_id, federation_id, name, n_rounds, spec, spec_sha256)"
            " VALUES ($1, 's1', $2, 'demo', 2, '{}', '')",
            TENANT,
            FED,
        )
    async with gateway_database.database.read_all() as connection:
        found = await connection.fetch(
            "SELECT table_name FROM information_schema.columns"
            " WHERE table_schema = 'public' AND column_name = 'tenant'"
        )
        tables = {row["table_name"] for row in found}
        assert tables >= {*TABLES, "events", "submissions", "cursors", "dead_letters"}
        filled = {
            table
            for table in tables
            if await connection.fetchval(f"SELECT 1 FROM {table} WHERE tenant = $1", TENANT)
        }
    assert filled >= {*TABLES, "events", "submissions"}
    for table in tables:
        async with gateway_database.database.transaction(OTHER) as tx:
            assert await tx.fetch(f"SELECT 1 FROM {table} WHERE tenant <> $1", OTHER) == []
            assert await tx.fetchval("SELECT current_setting('flowerbed.tenant')") == OTHER


async def test_a_federation_that_fails_or_is_cancelled_says_why(
    gateway_database: ServiceDatabase,
) -> None:
    story = Story()
    for name, event in (
        ("fed-f", FederationFailed(federation_id="fed-f", code="join-deadline", reason="nobody")),
        ("fed-c", FederationCancelled(federation_id="fed-c", reason="enough")),
    ):
        created = FederationCreated(
            federation_id=name,
            submission_id="s",
            spec=parse_spec(document()).document(),
            code_hash="c" * 64,
            join_deadline_at=NOON,
        )
        story.tell(f"federation-{name}", created)
        story.tell(f"federation-{name}", event)

    rows = await _folded(gateway_database, story)

    ended = {row["federation_id"]: row for row in rows["federations"]}
    failed, cancelled = ended["fed-f"], ended["fed-c"]
    assert [failed[column] for column in ("status", "code", "reason")] == [
        "failed",
        "join-deadline",
        "nobody",
    ]
    assert (cancelled["status"], cancelled["reason"]) == ("cancelled", "enough")
    assert failed["ended_at"] and failed["started_at"] is None
