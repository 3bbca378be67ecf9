"""A relay hears of a federation's open work at once, and answers for many clients."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx

from flowerbed.contracts.federation import FederationCompleted
from flowerbed.contracts.relay import RelayOrder, RelayWork
from flowerbed.contracts.round import RoundCompleted
from tests.integration.lease.clients import Client
from tests.integration.lease.conftest import BASE, FED, House
from tests.integration.lease.test_silence import sweep_for
from tests.integration.lease.test_work import joined
from tests.support.servers import eventually

__all__ = ["sweep_for"]


@dataclass(frozen=True)
class Named:
    client_id: str


async def ask(house: House, path: str, tenant: str = "acme", **body: Any) -> httpx.Response:
    path, body = f"/internal/relay/{FED}/{path}", {"tenant": tenant, **body}
    return await house.internal.post(path, json=body, timeout=60)


async def work(house: House, *known: str, seconds: float = 0, tenant: str = "acme") -> RelayWork:
    answer = await ask(house, "work", tenant, known=list(known), wait_seconds=seconds)
    assert answer.status_code == 200, answer.text
    return RelayWork.model_validate_json(answer.content)


async def opened(house: House, n: int = 2) -> tuple[list[Client], list[RelayOrder]]:
    clients = [client for client, _ in await joined(house, n)]
    await house.say(house.round_started(*clients))
    found = await work(house, seconds=30)
    return clients, list(found.orders)


def report(order: RelayOrder, **changes: Any) -> dict[str, Any]:
    return {
        "client_id": order.client_id,
        "lease_id": order.lease_id,
        "work_id": order.work_id,
        "answer": {
            "epoch": order.lease_epoch,
            "artifact": {"uri": order.upload, "sha256": "e" * 64, "size": 10},
            "n_examples": 12,
            **changes,
        },
    }


def failure(order: RelayOrder) -> dict[str, Any]:
    answer = {"epoch": order.lease_epoch, "code": "app-failed", "detail": "boom"}
    return {**report(order), "answer": answer}


async def test_a_waiting_relay_hears_of_all_work_at_once_as_the_clients_would(
    house: House, only_woken: None
) -> None:
    held = await joined(house, 3)
    waiting = asyncio.create_task(work(house, seconds=30))
    await asyncio.sleep(0)
    await house.say(house.round_started(*(client for client, _ in held)))
    orders = {order.client_id: order for order in (await waiting).orders}
    assert len(orders) == 3
    for client, lease in held:
        own, relayed = await client.ordered(lease), orders[client.client_id]
        shared = set(RelayOrder.model_fields) & set(type(own).model_fields) - {"upload"}
        assert own.model_dump(include=shared) == relayed.model_dump(include=shared)
        assert own.upload is not None and own.upload.uri == relayed.upload


async def test_known_work_is_not_handed_out_again_and_closed_work_is_named(house: House) -> None:
    _, orders = await opened(house)
    known = [order.work_id for order in orders]
    assert await work(house, known[0]) == RelayWork(orders=(orders[1],))
    waiting = asyncio.create_task(work(house, *known, seconds=30))
    completed = RoundCompleted(
        federation_id=FED, round_number=1, attempt=1, checkpoint=BASE, n_updates=1
    )
    await house.say(completed)
    assert sorted((await asyncio.wait_for(waiting, 60)).closed) == sorted(known)


async def test_each_answer_is_recorded_once_as_the_clients_own(house: House) -> None:
    (one, other), orders = await opened(house)
    answers = [
        report(order) if order.client_id == one.client_id else failure(order) for order in orders
    ]
    for _ in range(2):
        told = await ask(house, "answers", answers=answers)
        assert told.json() == {"refused": []}
    assert (await house.types(one))[2:] == ["update.submitted"]
    assert (await house.types(other))[2:] == ["update.failed"]
    assert await work(house) == RelayWork()


async def test_an_answer_that_does_not_fit_is_refused_alone(house: House) -> None:
    (one, other), orders = await opened(house)
    mine, other_s = sorted(orders, key=lambda order: order.client_id != one.client_id)
    stale = report(mine, epoch=7)
    elsewhere = report(other_s, artifact={"uri": "s3://a/b", "sha256": "e" * 64, "size": 1})
    foreign = {**report(mine), "client_id": other.client_id}
    told = await ask(house, "answers", answers=[stale, elsewhere, foreign, report(mine)])
    codes = [refused["code"] for refused in told.json()["refused"]]
    assert codes == ["lease-lost", "report-refused", "not-found"]
    assert (await house.types(one))[2:] == ["update.submitted"]
    assert (await house.types(other))[2:] == []


async def test_beats_in_bulk_keep_held_leases_alive_and_say_which_are(house: House) -> None:
    held = await joined(house, 2)
    ids = [client.client_id for client, _ in held]
    house.clock.move(timedelta(seconds=40))
    told = (await ask(house, "beats", clients=[*ids, "client-unknown"])).json()
    assert told == {"clients": sorted(ids), "heartbeat_seconds": 10.0}
    rows = await house.rows("SELECT seen_at FROM heartbeats")
    assert all(row["seen_at"] > house.clock.now() - timedelta(seconds=5) for row in rows)
    await house.revoke(held[0][0])
    assert (await ask(house, "beats", clients=ids)).json()["clients"] == [ids[1]]


async def test_a_federation_that_is_over_or_another_tenants_is_gone(house: House) -> None:
    await opened(house)
    asked: dict[str, dict[str, Any]]
    asked = {"work": {}, "beats": {"clients": []}, "answers": {"answers": []}}
    for path, body in asked.items():
        assert (await ask(house, path, "other", **body)).status_code == 410
    known = [order.work_id for order in (await work(house)).orders]
    waiting = asyncio.create_task(ask(house, "work", known=known, wait_seconds=30))
    await house.say(FederationCompleted(federation_id=FED, final=BASE, n_rounds=1))
    assert (await asyncio.wait_for(waiting, 60)).status_code == 410

    async def is_gone() -> bool:
        return (await ask(house, "work")).status_code == 410

    await eventually(is_gone, "the federation is over")


SIMULATED: dict[str, Any] = {
    "runtime": "simulation",
    "simulation": {"clients": 3},
    "lease": {"ttl_seconds": 60},
}
DATASET = {"label": "partition-0f7a1f4e-6a0e-4b3c-8a8e-1c2d3e4f5a6b", "sha256": "d" * 64}


def virtual(n: int = 3) -> list[dict[str, Any]]:
    return [{"client_id": f"sim-{number:05d}", "dataset": DATASET} for number in range(n)]


async def lease_of(house: House, number: int) -> list[tuple[str, dict[str, Any]]]:
    return await house.events(f"lease-{FED}-sim-{number:05d}")


async def test_virtual_clients_join_once_and_again_once_they_were_dropped(
    house: House, sweep_for: Callable[..., Any]
) -> None:
    await house.create(**SIMULATED)

    async def joined() -> bool:
        return (await ask(house, "members", members=virtual())).status_code == 200

    await eventually(joined, "the federation is known")
    told = (await ask(house, "members", members=virtual())).json()
    assert told["clients"] == ["sim-00000", "sim-00001", "sim-00002"]
    types = [event_type for event_type, _ in await lease_of(house, 1)]
    assert types == ["client.lease_issued", "client.joined"]
    await sweep_for(70)
    assert (await lease_of(house, 1))[-1][0] == "client.dropped"
    assert (await ask(house, "beats", clients=["sim-00001"])).json()["clients"] == []
    assert await joined()
    assert [data.get("epoch") for _, data in await lease_of(house, 1)] == [1, 1, 1, 2, 2]


async def test_virtual_clients_work_as_sites_do_and_no_site_is_offered_a_lease(
    house: House,
) -> None:
    site = await house.client()
    await house.create(**SIMULATED)

    async def joined() -> bool:
        return (await ask(house, "members", members=virtual(1))).status_code == 200

    await eventually(joined, "the federation is known")
    assert await site.poll() == []
    clients = [Named("sim-00000")]
    await house.say(house.round_started(*clients))  # type: ignore[arg-type]  # a name is enough
    (order,) = (await work(house, seconds=30)).orders
    assert (await ask(house, "answers", answers=[report(order)])).json() == {"refused": []}
    assert [event_type for event_type, _ in await lease_of(house, 0)][2:] == ["update.submitted"]


async def test_virtual_clients_that_cannot_take_part_say_why_once(house: House) -> None:
    await house.create(**SIMULATED)
    member = {"client_id": "sim-00000", "code": "dataset-gone", "detail": "no such folder"}

    async def told() -> bool:
        return (await ask(house, "members", members=[member])).status_code == 200

    await eventually(told, "the federation is known")
    assert await told()
    (_, (event_type, data)) = await lease_of(house, 0)
    assert (event_type, data["code"]) == ("client.declined", "dataset-gone")


async def test_a_federation_of_sites_has_no_virtual_clients(house: House) -> None:
    await joined(house)
    answer = await ask(house, "members", members=virtual())
    assert (answer.status_code, answer.json()["code"]) == (409, "not-simulated")


async def test_only_names_of_virtual_clients_join(house: House) -> None:
    members = [{"client_id": "client-0123456789ab", "dataset": DATASET}]
    assert (await ask(house, "members", members=members)).status_code == 422


async def test_a_relay_needs_the_internal_token(house: House) -> None:
    answer = await house.internal.post(
        f"/internal/relay/{FED}/work", json={"tenant": "acme"}, headers={"authorization": "no"}
    )
    assert answer.status_code == 401
