"""Whoever publishes a FederationSpec gets one federation, created or refused with every reason."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from faststream.nats import NatsBroker, TestNatsBroker
from faststream.nats.testing import PatchedMessage

from flowerbed.contracts.catalogue import EVENTS
from flowerbed.contracts.ids import federation_id
from flowerbed.contracts.trace import of_federation
from flowerbed.events.codec import Codec
from flowerbed.events.errors import Unavailable
from flowerbed.events.service import FROM_CREATED, Shell
from flowerbed.events.store import EventStore
from flowerbed.orchestrator import MIGRATIONS, __main__, submissions
from flowerbed.orchestrator.commanding import Federations
from flowerbed.orchestrator.projections.deadlines import deadlines
from flowerbed.orchestrator.submissions import MAX_PROBLEMS, submit, subscribe
from tests.integration.orchestrator.conftest import SUBJECT, House
from tests.support.federations import document, spec_of
from tests.support.servers import MakeDatabase, ServiceDatabase, eventually, free_port

REPLY = "$JS.ACK.FL_SUBMISSIONS.orchestrator.1.41.7.1700000000000000000.0"
"""Message 41 of the JetStream stream, as its server says it."""
YAML = b"""
apiVersion: flowerbed/v1
metadata: {name: demo, tenant: acme}
spec:
  app: builtin:hospital
  modelRef: {uri: "builtin:hospital"}
  numRounds: 2
  minClients: 2
  train: {seed: 7}
  roundPolicy: {deadlineSeconds: 60, maxAttempts: 2}
"""


async def settled(house: House) -> None:
    """Every submission is acknowledged."""

    async def is_settled() -> bool:
        assert house.shell is not None
        info = await admin.api("CONSUMER.INFO.FL_SUBMISSIONS.orchestrator", {})
        return bool(info["num_pending"] == 0 and info["num_ack_pending"] == 0)

    admin = house.nats_server.bus("admin")
    await admin.start()
    await admin.wait_connected(10)
    try:
        await eventually(is_settled, "every submission is acknowledged")
    finally:
        await admin.close()


async def test_the_same_spec_in_yaml_and_json_is_the_same_federation_but_for_its_id(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await house.publish(json.dumps(document()).encode(), {"ce-id": "as-json"})
    await house.publish(YAML, {"Nats-Msg-Id": "as-yaml"}, f"{SUBJECT}.acme.as-yaml")
    ids = [federation_id("acme", name) for name in ("as-json", "as-yaml")]
    told = [await house.heard(identity, "federation.created") for identity in ids]
    assert [one["submission_id"] for one in told] == ["as-json", "as-yaml"]
    assert told[0]["spec"] == told[1]["spec"] == spec_of().document()
    assert told[0]["code_hash"] == told[1]["code_hash"] != ""
    await settled(house)
    assert {getattr(line, "federation_id", None) for line in caplog.records} >= set(ids)


async def test_a_submission_without_an_id_is_named_by_its_place(house: House) -> None:
    acks = [await house.publish(YAML) for _ in range(2)]
    for ack in acks:
        await house.heard(federation_id("acme", f"seq-{ack.seq}"), "federation.created")
    rows = await house.rows("SELECT DISTINCT stream FROM events")
    assert len(rows) == 2, "said twice without a name, it is two federations"


async def test_the_same_id_twice_is_one_federation(house: House) -> None:
    identity = await house.submit()
    (row,) = await house.rows("SELECT data->>'submission_id' AS name FROM events")
    other = json.dumps(document(num_rounds=9)).encode()
    for _ in range(3):
        await house.publish(other, {"ce-id": row["name"]})
    await settled(house)
    events = await house.events(identity)
    assert [event_type for event_type, _ in events] == ["federation.created"]
    assert events[0][1]["spec"]["spec"]["num_rounds"] == 2, "the first one counts"


async def test_replicas_share_what_is_submitted(house: House) -> None:
    port = {"http_port": free_port()}
    second = Shell(house.settings.model_copy(update=port))
    await __main__.build(second)
    await second.start()
    names = [f"s{number}" for number in range(12)]
    try:
        for name in names[:8]:
            await house.publish(YAML, {"ce-id": name})
    finally:
        await second.stop()
    for name in names[8:]:
        await house.publish(YAML, {"ce-id": name})
    for name in names:
        await house.heard(federation_id("acme", name), "federation.created")
    await settled(house)
    assert len(await house.rows("SELECT 1 FROM events")) == len(names)


async def test_the_event_says_who_asked_and_is_in_its_federations_trace(house: House) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"ce-id": "s1", "ce-source": "/people/alice", "traceparent": trace}
    await house.publish(YAML, headers)
    identity = federation_id("acme", "s1")
    await house.heard(identity, "federation.created")
    (row,) = await house.rows("SELECT tenant, meta FROM events")
    assert row["tenant"] == "acme"
    assert json.loads(row["meta"]) == {
        "correlation_id": identity, "causation_id": "s1", "actor": "/people/alice",
        "traceparent": of_federation(identity),
    }  # fmt: skip


async def test_a_malformed_spec_is_rejected_with_every_problem(house: House) -> None:
    written = document(num_rounds=0, min_clients=True, secure_agg=True, nonsense=1)
    await house.publish(json.dumps(written).encode(), {"ce-id": "bad"})
    told = await house.heard(federation_id("acme", "bad"), "federation.rejected")
    assert {problem["path"] for problem in told["problems"]} == {
        "spec.num_rounds", "spec.min_clients", "spec.secure_agg", "spec.nonsense",
    }  # fmt: skip
    for problem in told["problems"]:
        assert problem["value"] and problem["allowed"]
    assert await house.rows("SELECT 1 FROM deadlines") == []
    await settled(house)


async def test_a_collector_that_is_not_allowed_is_a_reason_to_reject(house: House) -> None:
    written = document(telemetry={"otlp_endpoint": "http://169.254.169.254/latest"})
    await house.publish(json.dumps(written).encode(), {"ce-id": "elsewhere"})
    identity = federation_id("acme", "elsewhere")
    told = await house.heard(identity, "federation.rejected")
    (problem,) = told["problems"]
    assert problem["path"] == "spec.telemetry.otlp_endpoint"
    assert "FLOWERBED_<SERVICE>_OTLP_ALLOWED" in problem["allowed"]
    assert await house.types(identity) == ["federation.rejected"]
    await settled(house)


async def test_a_collector_that_is_allowed_is_kept_with_the_spec(house: House) -> None:
    assert house.shell is not None
    await house.stop()
    allowed = {"otlp_allowed": ("http://collector.example:4318",)}
    house.settings = house.settings.model_copy(update=allowed)
    await house.start()
    named = {"otlp_endpoint": "http://collector.example:4318", "otlp_protocol": "grpc"}
    identity = await house.submit(telemetry=named)
    (row,) = await house.rows("SELECT data #>> '{spec,spec,telemetry}' AS named FROM events")
    assert json.loads(row["named"]) == named
    async with house.made.database.read_all() as connection:
        found = await connection.fetch(FROM_CREATED, [identity, "fed-unknown"])
    assert [one["federation_id"] for one in found] == [identity]
    assert json.loads(found[0]["telemetry"]) == named


async def test_what_cannot_be_decoded_is_rejected_for_the_default_tenant(house: House) -> None:
    broken = {
        "not-yaml": b"apiVersion: [flowerbed/v1",
        "not-text": b"\xff\xfe\x00",
        "empty": b"",
        "too-long": b"#" * 300_000,
        "a-list": b"[1, 2]",
        "nan": b'{"spec": NaN}',
    }
    for name, body in broken.items():
        await house.publish(body, {"ce-id": name})
    for name in broken:
        told = await house.heard(federation_id("default", name), "federation.rejected")
        assert len(told["problems"]) == 1
    await settled(house)


async def test_a_rejection_is_the_named_tenants_where_that_is_a_name(house: House) -> None:
    for name, tenant, counted in (
        ("a", "acme", "acme"),
        ("b", "a.b", "default"),
        ("c", 3, "default"),
    ):
        written = {**document(num_rounds=0), "metadata": {"name": "demo", "tenant": tenant}}
        await house.publish(json.dumps(written).encode(), {"ce-id": name})
        await house.heard(federation_id(counted, name), "federation.rejected")


async def test_a_rejection_fits_into_a_message_however_much_is_wrong(house: House) -> None:
    written = document(**{f"w{number}": 1 for number in range(20_000)})
    await house.publish(json.dumps(written).encode(), {"ce-id": "endless"})
    told = await house.heard(federation_id("acme", "endless"), "federation.rejected")
    assert len(told["problems"]) == MAX_PROBLEMS + 1
    assert told["problems"][-1]["allowed"] == "the rules: 19900 more are broken"
    await settled(house)


async def test_a_submission_waits_until_postgres_is_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    async def away_once(*args: Any, **kwargs: Any) -> str:
        tried.append(1)
        if len(tried) == 1:
            raise Unavailable("postgres did not answer: tests")
        return await submit(*args, **kwargs)

    monkeypatch.setattr(submissions, "submit", away_once)
    monkeypatch.setattr(submissions, "RETRY_SECONDS", 0.05)
    identity = await house.submit()
    assert len(tried) == 2
    assert await house.types(identity) == ["federation.created"]
    await settled(house)


async def test_what_was_submitted_while_the_service_was_down_is_not_lost(house: House) -> None:
    assert house.shell is not None
    await house.stop()
    await house.publish(YAML, {"ce-id": "meanwhile"})
    await house.start()
    await house.heard(federation_id("acme", "meanwhile"), "federation.created")


# --- without a server: FastStream's own test broker ---------------------------------------------


async def test_the_subscriber_hands_a_message_over_as_it_was_published(
    service_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: ServiceDatabase = await service_database("orchestrator", [MIGRATIONS])
    store = EventStore(Codec(EVENTS), [deadlines])
    federations = Federations(store, lambda: datetime.now(UTC))
    broker = NatsBroker()
    subscribe(broker, made.database, federations, b"_INBOX.tests.")
    async with TestNatsBroker(broker) as tested:
        for headers in ({"ce-id": "s1"}, {"Nats-Msg-Id": "s1"}, {}):
            await tested.publish(YAML, f"{SUBJECT}.acme", headers=headers, reply_to=REPLY)
    async with made.database.read_all() as connection:
        rows = await connection.fetch("SELECT stream FROM events ORDER BY gpos")
    assert [row["stream"] for row in rows] == [
        f"federation-{federation_id('acme', name)}" for name in ("s1", "seq-41")
    ]


async def test_an_error_of_ours_is_said_and_the_submission_is_not_acknowledged(
    service_database: MakeDatabase,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = await service_database("orchestrator", [MIGRATIONS])

    async def broken(*args: Any, **kwargs: Any) -> str:
        raise ValueError("a bug")

    acknowledged: list[str] = []

    async def ack(message: object) -> None:
        acknowledged.append("ack")

    monkeypatch.setattr(submissions, "submit", broken)
    monkeypatch.setattr(PatchedMessage, "ack", ack)
    broker = NatsBroker()
    federations = Federations(EventStore(Codec(EVENTS), [deadlines]), lambda: datetime.now(UTC))
    subscribe(broker, made.database, federations, b"_INBOX.tests.")
    async with TestNatsBroker(broker) as tested:
        with pytest.raises(ValueError, match="a bug"):
            await tested.publish(YAML, f"{SUBJECT}.acme", reply_to=REPLY)
    assert acknowledged == []
    assert "submission 41 cannot be recorded" in caplog.text
