"""Over a SuperLink a claim names its SuperNode's key, and a relay hears of who holds a lease."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from flowerbed.contracts.relay import RelayNode, RelayNodes
from tests.integration.lease.clients import DATASET, Client
from tests.integration.lease.conftest import FED, House

KEY, OTHER = (f"ecdsa-sha2-nistp384 {letter * 180}==" for letter in "AB")


async def claimed(client: Client, offer: dict[str, Any], **more: Any) -> httpx.Response:
    body = {"epoch": offer["epoch"], "dataset": DATASET, **more}
    return await client.ask(f"/v1/leases/{offer['lease_id']}/claim", body)


async def offered(house: House) -> tuple[Client, dict[str, Any]]:
    client = await house.client()
    await house.create(runtime="superlink")
    return client, await client.offered()


async def nodes(house: House, tenant: str = "acme") -> RelayNodes:
    path = f"/internal/relay/{FED}/nodes"
    answer = await house.internal.post(path, json={"tenant": tenant})
    assert answer.status_code == 200, answer.text
    return RelayNodes.model_validate_json(answer.content)


async def test_the_manifest_says_how_the_work_travels(house: House) -> None:
    client, offer = await offered(house)
    assert client.manifest(offer).runtime == "superlink"


async def test_a_claim_without_a_supernode_is_refused_and_changes_nothing(house: House) -> None:
    client, offer = await offered(house)
    answer = await claimed(client, offer)
    assert (answer.status_code, answer.json()["code"]) == (422, "no-supernode")
    assert await house.types(client) == ["client.lease_issued"]


@pytest.mark.parametrize("key", ["", "ssh-rsa AAAA", f"{KEY} a comment", KEY[:40], 3])
async def test_what_is_no_key_is_refused(house: House, key: object) -> None:
    client, offer = await offered(house)
    assert (await claimed(client, offer, node_key=key)).status_code == 422


async def test_the_key_is_recorded_and_stays_for_as_long_as_the_lease_is_held(
    house: House,
) -> None:
    client, offer = await offered(house)
    for _ in range(2):
        assert (await claimed(client, offer, node_key=KEY)).status_code == 200
    answer = await claimed(client, offer, node_key=OTHER)
    assert (answer.status_code, answer.json()["code"]) == (409, "node-changed")
    _, (kind, joined) = await house.lease_events(client)
    assert (kind, joined["node_key"]) == ("client.joined", KEY)
    lease, who = offer["lease_id"], client.client_id
    assert (await nodes(house)).nodes == (RelayNode(client_id=who, lease_id=lease, node_key=KEY),)
    await client.release(offer)
    assert (await nodes(house)).nodes == ()


async def test_a_heartbeat_says_when_a_supernode_had_no_work(house: House) -> None:
    client, offer = await offered(house)
    await claimed(client, offer, node_key=KEY)

    async def idle_for(seconds: float) -> float:
        beat = {"epoch": offer["epoch"], "idle_seconds": seconds}
        answer = await client.ask(f"/v1/leases/{offer['lease_id']}/heartbeat", beat)
        assert answer.status_code == 200, answer.text
        found = await nodes(house)
        (node,) = found.nodes
        assert node.idle_at is not None
        return (found.now - node.idle_at).total_seconds()

    assert await idle_for(300) == pytest.approx(300, abs=60)
    house.clock.move(timedelta(minutes=5))
    assert await idle_for(0) == pytest.approx(0, abs=60)
    assert await idle_for(300) == pytest.approx(0, abs=60), "an older moment replaces no newer one"


async def test_the_work_goes_to_the_relay_and_not_over_the_door(house: House) -> None:
    client, offer = await offered(house)
    await claimed(client, offer, node_key=KEY)
    await house.say(house.round_started(client))
    body = {"tenant": "acme", "wait_seconds": 20}
    answer = await house.internal.post(f"/internal/relay/{FED}/work", json=body, timeout=60)
    (order,) = answer.json()["orders"]
    assert order["client_id"] == client.client_id
    assert await client.next_work(offer) is None


async def test_another_tenant_hears_of_no_node(house: House) -> None:
    client, offer = await offered(house)
    await claimed(client, offer, node_key=KEY)
    path = f"/internal/relay/{FED}/nodes"
    assert (await house.internal.post(path, json={"tenant": "other"})).status_code == 410
