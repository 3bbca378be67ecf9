"""A lease is offered as soon as there is a federation, claimed once, and let go in order."""

import asyncio
import json

import pytest

from flowerbed.contracts.federation import (
    FederationCancelled,
    FederationCompleted,
    FederationFailed,
)
from flowerbed.contracts.signed import Manifest
from flowerbed.events import release
from flowerbed.lease import federations
from tests.integration.lease.clients import DATASET
from tests.integration.lease.conftest import BASE, FED, House
from tests.support.servers import eventually


async def test_a_waiting_client_is_offered_a_lease_at_once_when_a_federation_comes(
    house: House, only_woken: None
) -> None:
    client = await house.client()
    waiting = asyncio.create_task(client.poll(30))
    assert await client.poll() == []
    await house.create()
    (offer,) = await waiting
    assert (offer["federation_id"], offer["epoch"]) == (FED, 1)
    assert await house.types(client) == ["client.lease_issued"]


async def test_an_offer_is_made_again_until_the_client_knows_it(house: House) -> None:
    client = await house.client()
    await house.create()
    offer = await client.offered()
    (again,) = await client.poll()
    assert (again["lease_id"], again["epoch"]) == (offer["lease_id"], 1)
    assert await client.poll(0, (offer["lease_id"], 1)) == []
    assert await house.types(client) == ["client.lease_issued"]


async def test_a_lease_is_claimed_once_however_often_it_is_asked_for(house: House) -> None:
    client = await house.client()
    await house.create()
    offer = await client.offered()
    first, second = await client.claim(offer), await client.claim(offer)
    assert first.status_code == second.status_code == 200
    held = first.json()
    assert (held["lease_id"], held["epoch"], held["heartbeat_seconds"]) == (
        offer["lease_id"], 1, 10.0,
    )  # fmt: skip
    assert await house.types(client) == ["client.lease_issued", "client.joined"]
    assert (await house.lease_events(client))[1][1]["dataset"] == DATASET
    other = await client.claim(offer, sha256="e" * 64)
    assert (other.status_code, other.json()["code"]) == (409, "dataset-changed")
    ahead = await client.claim({**offer, "epoch": 2})
    assert (ahead.status_code, ahead.json()["code"]) == (410, "lease-lost")


async def test_the_manifest_says_where_the_spec_wants_the_spans(house: House) -> None:
    client = await house.client()
    await house.create(federation_id="fed-plain")
    named = {"otlp_endpoint": "https://collector.example:4318", "otlp_protocol": "grpc"}
    await house.create(telemetry=named)
    manifests: dict[str, Manifest] = {}

    async def both() -> bool:
        manifests.update(
            {one["federation_id"]: client.manifest(one) for one in await client.poll()}
        )
        return len(manifests) == 2

    await eventually(both, "both are offered")
    asked, plain = manifests[FED], manifests["fed-plain"]
    assert (asked.otlp_endpoint, asked.otlp_protocol) == tuple(named.values())
    assert (plain.otlp_endpoint, plain.otlp_protocol) == (None, None)
    async with house.made.database.read_all() as connection:
        rows = await connection.fetch(federations.TELEMETRY, [FED, "fed-plain", "fed-unknown"])
    found = {row["federation_id"]: row["telemetry"] for row in rows}
    assert (json.loads(found[FED]), found["fed-plain"]) == (named, None)


async def test_a_site_that_declines_says_so_once_and_may_claim_later(house: House) -> None:
    client = await house.client()
    await house.create()
    offer = await client.offered()
    path = f"/v1/leases/{offer['lease_id']}/decline"
    gone = {"epoch": 1, "code": "dataset-gone", "detail": "the dataset is not there"}
    for _ in range(2):
        await client.told(path, gone)
    assert (await house.lease_events(client))[1][1]["code"] == "dataset-gone"
    assert (await client.ask(path, {**gone, "epoch": 2})).status_code == 410
    (again,) = await client.poll()
    assert (again["lease_id"], again["epoch"]) == (offer["lease_id"], 1), "it stays offered"
    assert (await client.claim(offer)).status_code == 200
    assert await house.types(client) == [
        "client.lease_issued", "client.declined", "client.joined",
    ]  # fmt: skip


async def test_who_has_not_read_the_form_of_updates_gets_no_lease(house: House) -> None:
    """A runner of an earlier release knows nothing of forms: it would send what nobody can read."""
    client = await house.client()
    await house.create(update={"form": "int8", "block": 64})
    offer = await client.offered()
    terms = client.manifest(offer).update
    assert terms is not None and (terms.form, terms.block) == ("int8", 64)
    for _ in range(2):
        refused = await client.claim(offer)
        assert (refused.status_code, refused.json()["code"]) == (409, "update-form")
    assert "int8, the client says nothing, as an earlier release" in refused.json()["detail"]
    other = await client.claim(offer, update_form="top_k")
    assert other.json()["code"] == "update-form"
    assert (await client.claim(offer, update_form="int8")).status_code == 200
    assert await house.types(client) == [
        "client.lease_issued", "client.declined", "client.joined",
    ]  # fmt: skip
    assert (await house.lease_events(client))[1][1]["code"] == "update-form"


async def test_while_an_older_replica_runs_declining_changes_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def not_yet(tx: object) -> bool:
        return False

    monkeypatch.setattr(release, "reached", not_yet)
    client = await house.client()
    await house.create()
    offer = await client.offered()
    gone = {"epoch": 1, "code": "dataset-gone", "detail": "the dataset is not there"}
    await client.told(f"/v1/leases/{offer['lease_id']}/decline", gone)
    assert await house.types(client) == ["client.lease_issued"]


async def test_a_client_that_asks_many_times_at_once_gets_one_lease_and_joins_once(
    house: House,
) -> None:
    client = await house.client()
    await house.create()
    await house.until_heard(1)
    polled = await asyncio.gather(*(client.poll() for _ in range(8)))
    assert {(offer["lease_id"], offer["epoch"]) for (offer,) in polled} == {
        (polled[0][0]["lease_id"], 1)
    }
    claimed = await asyncio.gather(*(client.claim(polled[0][0]) for _ in range(8)))
    assert [answer.status_code for answer in claimed] == [200] * 8
    assert await house.types(client) == ["client.lease_issued", "client.joined"]


async def test_a_heartbeat_says_until_when_the_lease_is_held(house: House) -> None:
    client = await house.client()
    await house.create()
    offer = await client.offered()
    early = await client.beat(offer)
    assert (early.status_code, early.json()["code"]) == (410, "lease-lost"), "not claimed yet"
    await client.claim(offer)
    assert (await client.beat(offer)).status_code == 200
    old = await client.beat({**offer, "epoch": 7})
    assert (old.status_code, old.json()["code"]) == (410, "lease-lost")
    assert "epoch 7 does not hold the lease (held, 1)" in old.json()["detail"]
    assert len(await house.types(client)) == 2, "a heartbeat is no event"


async def test_a_released_lease_is_let_go_once_and_offered_again_under_the_next_epoch(
    house: House,
) -> None:
    client = await house.client()
    await house.create()
    lease = await client.joined()
    waiting = asyncio.create_task(
        client.ask(f"/v1/leases/{lease['lease_id']}/work/next", {"epoch": 1, "wait_seconds": 30})
    )
    await client.beat(lease)
    for _ in range(2):
        assert (await client.release(lease, "maintenance")).json() == {"status": "recorded"}
    assert (await waiting).status_code == 410, "who waits for work under it hears so at once"
    events = await house.lease_events(client)
    assert [event_type for event_type, _ in events][2:] == ["client.released"]
    assert events[-1][1]["reason"] == "maintenance"
    again = await client.joined()
    assert (again["lease_id"], again["epoch"]) == (lease["lease_id"], 2)


async def test_only_clients_with_the_federations_tags_are_offered_a_lease(house: House) -> None:
    plain, tagged = await house.client(tags=("gpu",)), await house.client(tags=("gpu", "eu"))
    await house.create(client_selector={"tags": ["eu", "gpu"]})
    assert (await tagged.offered())["federation_id"] == FED
    assert await plain.poll() == []


async def test_a_client_takes_part_in_every_federation_that_fits(house: House) -> None:
    client = await house.client()
    await house.create()
    await house.create(federation_id="fed-other00000000000")
    await house.until_heard(2)
    offers = await client.poll()
    assert [offer["federation_id"] for offer in offers] == [FED, "fed-other00000000000"]
    known = [(offer["lease_id"], offer["epoch"]) for offer in offers]
    assert await client.poll(0, *known) == []
    assert [o["lease_id"] for o in await client.poll(0, known[0])] == [known[1][0]]


async def test_a_dataset_takes_part_by_its_task_label_and_digest(house: House) -> None:
    client = await house.client()
    rules = {
        "uris": (["local:vision"], ["local:hospital"], "is of none of local:vision"),
        "shards": (["another"], ["another", DATASET["label"]], "none of the federation's shards"),
        "hashes": (["a" * 64], ["a" * 64, DATASET["sha256"]], "none of the 1 admitted"),
    }
    for key, (refused, admitted, _) in rules.items():
        await house.create(federation_id=f"fed-{key}-refused", dataset_spec={key: refused})
        await house.create(federation_id=f"fed-{key}-admitted", dataset_spec={key: admitted})
    await house.until_heard(6)
    offers = {offer["federation_id"]: offer for offer in await client.poll()}
    for key, (_, _, told) in rules.items():
        answer = await client.claim(offers[f"fed-{key}-refused"])
        assert (answer.status_code, answer.json()["code"]) == (403, "dataset-not-admitted")
        assert told in answer.json()["detail"]
        assert (await client.claim(offers[f"fed-{key}-admitted"])).status_code == 200


async def test_leases_end_when_the_federation_does(house: House) -> None:
    ends = {
        "completed": FederationCompleted(federation_id=FED, final=BASE, n_rounds=1),
        "failed": FederationFailed(federation_id=FED, code="round-failed", reason="why"),
        "cancelled": FederationCancelled(federation_id=FED),
    }
    held, offered = await house.client(), await house.client()
    for epoch, (outcome, event) in enumerate(ends.items(), 1):
        await house.create()
        lease = await held.joined()
        await offered.offered()
        assert lease["epoch"] == epoch
        waiting = asyncio.create_task(
            held.ask(
                f"/v1/leases/{lease['lease_id']}/work/next", {"epoch": epoch, "wait_seconds": 30}
            )
        )
        await house.say(event)
        assert (await asyncio.wait_for(waiting, 60)).status_code == 410
        for client in (held, offered):
            told = (await house.lease_events(client))[-1]
            assert (told[0], told[1]["reason"]) == ("client.released", f"federation {outcome}")
        assert await held.poll() == []
        late = await held.claim(lease)
        assert (late.status_code, late.json()["code"]) == (410, "lease-lost")
        assert (await held.beat(lease)).status_code == 410


async def test_no_lease_is_issued_in_a_federation_that_is_just_ending(house: House) -> None:
    """The end is not committed yet when the client asks: it waits, and is offered nothing."""
    client = await house.client()
    await house.create()
    await house.until_heard(1)
    database = house.made.database

    async def is_decided() -> bool:
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        return polling.done() or bool((await house.rows(waits))[0]["count"])

    async with database.transaction("acme") as tx:
        await federations.forget(tx, FED)
        polling = asyncio.create_task(client.poll())
        await eventually(is_decided, "the poll waits for the end, or was answered")
    assert await polling == []
    assert await house.types(client) == []
