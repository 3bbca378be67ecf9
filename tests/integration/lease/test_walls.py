"""A certificate reaches its own leases alone; a tenant sees its own rows alone."""

from typing import Any

import httpx

from tests.integration.lease.clients import DATASET, Client
from tests.integration.lease.conftest import FED, House
from tests.support.isolation import assert_walled

OTHER_FED = "fed-other00000000000"
LINE = {"number": 1, "at": "2026-01-01T00:00:00Z", "text": "a line"}


async def every_route(
    client: Client, lease: dict[str, Any], work_id: str, upload: str
) -> dict[str, httpx.Response]:
    """All that can be asked about a lease."""
    of, epoch = f"/v1/leases/{lease['lease_id']}", lease["epoch"]
    artifact = {"uri": upload, "sha256": "e" * 64, "size": 1}
    bodies: dict[str, dict[str, Any]] = {
        "claim": {"epoch": epoch, "dataset": DATASET},
        "heartbeat": {"epoch": epoch},
        "work/next": {"epoch": epoch},
        f"work/{work_id}/report": {"epoch": epoch, "artifact": artifact, "n_examples": 3},
        f"work/{work_id}/failure": {"epoch": epoch, "code": "app-failed"},
        "logs": {"epoch": epoch, "run": "r", "lines": [LINE]},
        "release": {"epoch": epoch},
    }
    return {path: await client.ask(f"{of}/{path}", body) for path, body in bodies.items()}


async def test_a_certificate_reaches_no_lease_of_another_client_or_tenant(house: House) -> None:
    owner = await house.client()
    await house.create()
    lease = await owner.joined()
    await house.say(house.round_started(owner))
    order = await owner.ordered(lease)
    assert order.upload is not None
    neighbour, stranger = await house.client(), await house.client(tenant="other")
    await neighbour.joined()
    before = await house.rows("SELECT stream, version FROM events ORDER BY gpos")
    for who in (neighbour, stranger):
        answers = await every_route(who, lease, order.work_id, order.upload.uri)
        for path, answer in answers.items():
            assert (answer.status_code, answer.json()["code"]) == (404, "not-found"), path
            assert order.work_id not in answer.text
    assert await stranger.poll() == []
    assert await house.rows("SELECT stream, version FROM events ORDER BY gpos") == before
    assert (await owner.report(lease, order)).status_code == 200


async def test_a_revoked_client_reaches_nothing(house: House) -> None:
    client = await house.client()
    await house.create()
    lease = await client.joined()
    await house.say(house.round_started(client))
    order = await client.ordered(lease)
    assert order.upload is not None
    await house.revoke(client)
    for path, answer in (await every_route(client, lease, order.work_id, order.upload.uri)).items():
        assert (answer.status_code, answer.json()["code"]) == (403, "client-not-admitted"), path


async def test_the_client_door_has_no_internal_or_enrolment_routes(house: House) -> None:
    token = house.internal.headers["authorization"]
    for path in ("/internal/invites", "/v1/enrol", "/metrics", "/status", "/docs", "/openapi.json"):
        for method in ("GET", "POST"):
            answer = await house.door.request(method, path, headers={"authorization": token})
            assert answer.status_code == 404, path
    for path in ("/v1/leases/poll", "/internal/invites", "/v1/certificate"):
        assert (await house.enrol_door.post(path, json={})).status_code == 404


async def test_a_tenants_rows_are_its_own_on_every_table(house: House) -> None:
    for tenant, federation_id in (("acme", FED), ("other", OTHER_FED)):
        client = await house.client(tenant=tenant)
        await house.create(tenant, federation_id)
        lease = await client.joined()
        exchange = house.round_started(client)
        members = tuple(
            one.model_copy(update={"lease_id": lease["lease_id"]}) for one in exchange.cohort
        )
        changes = {"federation_id": federation_id, "cohort": members}
        await house.say(exchange.model_copy(update=changes), tenant, federation_id)
        await client.ordered(lease)
        lines = {"epoch": lease["epoch"], "run": "r", "lines": [LINE]}
        await client.told(f"/v1/leases/{lease['lease_id']}/logs", lines)
    for mine, other in (("acme", "other"), ("other", "acme")):
        await assert_walled(house.made, mine, other, empty={"dead_letters"})


async def test_the_service_says_how_it_is(house: House) -> None:
    assert (await house.internal.get("/healthz")).status_code == 200
    client = await house.client()
    await house.create()
    await client.joined()
    metrics = (await house.internal.get("/metrics")).text
    assert "fl_clients_joined_total" in metrics
