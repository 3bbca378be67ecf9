"""Work is handed out as soon as it exists, again until it is answered, and answered once."""

import asyncio
from datetime import timedelta
from typing import Any

from flowerbed.contracts.federation import FederationCompleted
from flowerbed.contracts.round import RoundCompleted, RoundFailed
from flowerbed.lease.__main__ import WAITING
from tests.integration.lease.clients import Client
from tests.integration.lease.conftest import BASE, FED, MINUTE, House
from tests.support.servers import eventually


async def joined(house: House, n_clients: int = 1) -> list[tuple[Client, dict[str, Any]]]:
    """Clients that hold their leases in the federation, each with its lease."""
    clients = [await house.client() for _ in range(n_clients)]
    await house.create()
    return [(client, await client.joined()) for client in clients]


async def test_a_waiting_client_hears_of_its_work_at_once(house: House, only_woken: None) -> None:
    ((client, lease),) = await joined(house)
    waiting = asyncio.create_task(client.next_work(lease, 30))
    await client.beat(lease)
    await house.say(house.round_started(client))
    assert await waiting is not None


async def test_there_is_no_work_before_a_round_and_asking_is_a_heartbeat(house: House) -> None:
    ((client, lease),) = await joined(house)
    (before,) = await house.rows("SELECT seen_at FROM heartbeats")
    assert await client.next_work(lease) is None
    (same,) = await house.rows("SELECT seen_at FROM heartbeats")
    assert same["seen_at"] == before["seen_at"], "it is a moment old: nothing to write"
    house.clock.move(timedelta(seconds=2))
    assert await client.next_work(lease) is None
    (after,) = await house.rows("SELECT seen_at FROM heartbeats")
    assert after["seen_at"] > before["seen_at"] + timedelta(seconds=2)


async def test_that_a_poll_still_waits_is_no_heartbeat(house: House) -> None:
    ((client, lease),) = await joined(house)

    async def seen() -> Any:
        return (await house.rows("SELECT seen_at FROM heartbeats"))[0]["seen_at"]

    before = await seen()
    house.clock.move(timedelta(seconds=2))
    waiting = asyncio.create_task(client.next_work(lease, 2))

    async def is_asked() -> bool:
        return bool(await seen() != before)

    await eventually(is_asked, "the first look is a heartbeat")
    asked = await seen()
    bus = await house.make_bus("lease")
    for _ in range(3):
        bus.nudge(WAITING, lease["lease_id"].encode())
        await asyncio.sleep(0.1)
    assert await waiting is None
    assert await seen() == asked


async def test_the_same_work_is_ordered_again_until_it_is_answered(house: House) -> None:
    ((client, lease),) = await joined(house)
    await house.say(house.round_started(client))
    first, second = await client.ordered(lease), await client.ordered(lease)
    assert first.jti != second.jti
    of = {"jti", "iat", "nbf", "download", "upload"}
    assert first.model_dump(exclude=of) == second.model_dump(exclude=of)
    answer = await client.report(lease, first)
    assert answer.json() == {"status": "recorded"}
    assert await client.next_work(lease) is None


async def test_a_report_counts_once_whatever_is_said_again(house: House) -> None:
    ((client, lease),) = await joined(house)
    await house.say(house.round_started(client))
    order = await client.ordered(lease)
    answers = await asyncio.gather(*(client.report(lease, order) for _ in range(6)))
    assert [answer.status_code for answer in answers] == [200] * 6
    assert (await client.report(lease, order, n_examples=999)).status_code == 200
    assert (await client.fail(lease, order.work_id)).status_code == 200
    events = await house.lease_events(client)
    assert [event_type for event_type, _ in events][2:] == ["update.submitted"]
    told = events[-1][1]
    assert order.upload is not None and told["artifact"]["uri"] == order.upload.uri
    assert (told["n_examples"], told["train_seconds"], told["lease_epoch"]) == (12, 1.5, 1)
    assert (told["round_number"], told["attempt"], told["exchange"]) == (1, 1, "train")
    assert told["metrics"] == {"train-loss": 0.5}


async def test_what_a_site_measured_is_in_the_fact_and_nothing_else_is(house: House) -> None:
    ((client, lease),) = await joined(house)
    measures = {
        "download_seconds": 0.25, "upload_seconds": 0.5, "n_tokens": 4096, "joules": None,
        "joules_reason": "no-counter",
    }  # fmt: skip
    nothing = dict.fromkeys(measures)
    for number, report in enumerate(({"measures": measures}, {}), 1):
        await house.say(house.round_started(client, number=number))
        order = await client.ordered(lease)
        assert order.takes_measures and order.round_number == number
        assert (await client.report(lease, order, **report)).status_code == 200
    _, (_, first), (_, second) = (await house.lease_events(client))[1:]
    assert {name: first[name] for name in measures} == measures
    assert {name: second[name] for name in measures} == nothing


async def test_a_site_is_not_asked_for_measures_while_an_older_replica_may_take_its_report(
    house: House,
) -> None:
    ((client, lease),) = await joined(house)
    await house.say(house.round_started(client))
    assert (await client.ordered(lease)).takes_measures
    owner = await house.made.owner()
    await owner.execute("UPDATE release SET number = number - 1")
    try:
        assert not (await client.ordered(lease)).takes_measures
    finally:
        await owner.execute("UPDATE release SET number = number + 1")


async def test_a_failure_is_an_answer(house: House) -> None:
    ((client, lease),) = await joined(house)
    await house.say(house.round_started(client))
    order = await client.ordered(lease)
    for _ in range(2):
        answer = await client.fail(lease, order.work_id, "dataset-changed", "a file is gone\0")
        assert answer.status_code == 200
    assert (await client.report(lease, order)).status_code == 200
    events = await house.lease_events(client)
    assert [event_type for event_type, _ in events][2:] == ["update.failed"]
    told = events[-1][1]
    assert (told["code"], told["detail"]) == ("dataset-changed", "a file is gone\ufffd")
    assert await client.next_work(lease) is None


async def test_what_does_not_answer_an_order_is_refused_and_nothing_changes(house: House) -> None:
    ((client, lease),) = await joined(house)
    await house.say(house.round_started(client))
    order = await client.ordered(lease)
    assert order.upload is not None
    elsewhere = {"uri": order.upload.uri + "x", "sha256": "e" * 64, "size": 1}
    other = order.model_copy(update={"work_id": f"{FED}.9.1.train.{client.client_id}"})
    refused = [
        (await client.report(lease, order, artifact=None), 422, "report-refused"),
        (await client.report(lease, order, artifact=elsewhere), 422, "report-refused"),
        (await client.report(lease, order, epoch=2), 410, "lease-lost"),
        (await client.report(lease, order, metrics={"loss": "low"}), 422, "not-valid"),
        (await client.report(lease, order, n_examples=2**63), 422, "not-valid"),
        (await client.report(lease, order, extra=1), 422, "not-valid"),
        (await client.report(lease, other), 409, "work-closed"),
        (await client.fail({**lease, "epoch": 2}, order.work_id), 410, "lease-lost"),
        (await client.fail(lease, other.work_id), 409, "work-closed"),
        (await client.fail(lease, order.work_id, code="Not A Code"), 422, "not-valid"),
        (await client.ask("/v1/leases/%00/heartbeat", {"epoch": 1}), 422, "not-valid"),
    ]
    for answer, status, code in refused:
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert len(await house.types(client)) == 2
    assert (await client.ordered(lease)).work_id == order.work_id


async def test_an_evaluation_is_answered_without_an_update(house: House) -> None:
    ((client, lease),) = await joined(house)
    await house.say(house.evaluation_started(client))
    order = await client.ordered(lease)
    assert (order.exchange, order.message_type, order.upload) == ("evaluate", "evaluate", None)
    artifact = {"uri": "s3://b/k", "sha256": "e" * 64, "size": 1}
    refused = await client.report(lease, order, artifact=artifact)
    assert (refused.status_code, refused.json()["code"]) == (422, "report-refused")
    assert (await client.report(lease, order, metrics={"accuracy": 0.5})).status_code == 200
    assert (await house.lease_events(client))[-1][1]["artifact"] is None


async def test_a_cohort_member_is_ordered_its_own_work_and_others_none(house: House) -> None:
    pairs = await joined(house, 3)
    chosen = [client for client, _ in pairs[:2]]
    await house.say(house.round_started(*chosen))
    orders = [await client.ordered(lease) for client, lease in pairs[:2]]
    assert [order.seed for order in orders] == [100, 101]
    assert [order.aud for order in orders] == [client.client_id for client in chosen]
    assert await pairs[2][0].next_work(pairs[2][1]) is None


async def test_no_work_is_ordered_after_its_deadline(house: House) -> None:
    ((client, lease),) = await joined(house)
    await house.say(house.round_started(client))
    order = await client.ordered(lease)
    house.clock.move(10 * MINUTE)
    assert await client.next_work(lease) is None
    late = await client.report(lease, order)
    assert late.status_code == 200, "whether it is too late is the aggregator's to say"


async def test_a_round_that_is_over_closes_its_work(house: House) -> None:
    ((client, lease),) = await joined(house)
    ends = [
        RoundFailed(
            federation_id=FED, round_number=1, attempt=1, code="quorum-missed", reason="why",
            attempts_left=1,
        ),
        RoundCompleted(
            federation_id=FED, round_number=1, attempt=2, checkpoint=BASE, n_updates=1
        ),
    ]  # fmt: skip
    for attempt, end in enumerate(ends, 1):
        await house.say(house.round_started(client, attempt=attempt))
        order = await client.ordered(lease)
        await house.say(end)
        await house.until_heard(1 + 2 * attempt)
        assert await client.next_work(lease) is None
        for closed in (
            await client.report(lease, order), await client.fail(lease, order.work_id),
        ):  # fmt: skip
            assert (closed.status_code, closed.json()["code"]) == (409, "work-closed")
    assert len(await house.types(client)) == 2


async def test_the_next_exchange_closes_the_one_before(house: House) -> None:
    ((client, lease),) = await joined(house)
    await house.say(house.round_started(client))
    train = await client.ordered(lease)
    await house.say(house.evaluation_started(client))
    await house.until_heard(3)
    assert (await client.ordered(lease)).exchange == "evaluate"
    assert (await client.report(lease, train)).json()["code"] == "work-closed"


async def test_a_federation_that_is_over_leaves_no_work_behind(house: House) -> None:
    ((client, lease),) = await joined(house)
    await house.say(house.round_started(client))
    order = await client.ordered(lease)
    await house.say(FederationCompleted(federation_id=FED, final=BASE, n_rounds=1))
    await house.until_heard(3)
    assert (await client.report(lease, order)).json()["code"] == "lease-lost"
    for table in ("federations", "exchanges", "work"):
        assert await house.rows(f"SELECT 1 FROM {table}") == []


async def test_the_service_starts_again_and_goes_on(house: House) -> None:
    ((client, lease),) = await joined(house)
    await house.say(house.round_started(client))
    order = await client.ordered(lease)
    await house.stop()
    await house.start()
    assert (await client.ordered(lease)).work_id == order.work_id
    assert (await client.report(lease, order)).status_code == 200


# --- what is signed ----------------------------------------------------------------------------


async def test_a_manifest_says_everything_a_site_decides_on(house: House) -> None:
    client = await house.client()
    await house.create(dataset_spec={"uris": ["local:hospital"], "hashes": ["d" * 64]})
    offer = await client.offered()
    assert client.verified(offer["manifest"]).headers()["typ"] == "flowerbed-manifest+jwt"
    manifest = client.manifest(offer)
    assert (manifest.iss, manifest.aud) == ("flowerbed-lease", client.client_id)
    assert (manifest.tenant, manifest.federation_id) == ("acme", FED)
    assert (manifest.lease_id, manifest.lease_epoch) == (offer["lease_id"], 1)
    assert (manifest.app, manifest.code_hash) == ("builtin:hospital", "c" * 64)
    assert (manifest.model_uri, manifest.strategy) == ("builtin:hospital", "fedavg")
    assert manifest.hyper_parameters == {
        "local_epochs": 1, "batch_size": 32, "learning_rate": 0.01, "seed": 7, "weight_decay": 0.5,
    }  # fmt: skip
    assert manifest.dataset_uris == ("local:hospital",)
    assert manifest.dataset_hashes == ("d" * 64,)
    assert (manifest.limits.ttl_seconds, manifest.limits.max_epochs) == (60, 5)
    now = house.clock.now().timestamp()
    assert manifest.nbf <= manifest.iat <= now < manifest.exp <= now + 601


async def test_a_work_order_says_everything_that_the_work_needs(house: House) -> None:
    ((client, lease),) = await joined(house)
    started = house.round_started(client, number=3, attempt=2)
    await house.say(started)
    signed = await client.next_work(lease, 30)
    assert signed is not None
    assert client.verified(signed).headers()["typ"] == "flowerbed-work-order+jwt"
    order = await client.ordered(lease)
    assert (order.iss, order.aud, order.tenant) == ("flowerbed-lease", client.client_id, "acme")
    assert (order.lease_id, order.lease_epoch) == (lease["lease_id"], 1)
    assert order.work_id == f"{FED}.3.2.train.{client.client_id}"
    assert (order.seed, order.config, order.base) == (100, started.config, BASE)
    assert (order.dataset_sha256, order.code_hash) == ("d" * 64, "c" * 64)
    assert order.download.url.startswith("http://127.0.0.1:3/flowerbed/checkpoints/base?")
    assert order.upload is not None
    place = f"checkpoints/updates/{FED}/3-2/{client.client_id}.safetensors"
    assert order.upload.uri == f"s3://flowerbed/{place}"
    assert order.upload.url.startswith(f"http://127.0.0.1:3/flowerbed/{place}?")
    assert abs(order.exp - started.deadline_at.timestamp()) <= 1, "it expires at the deadline"


async def test_what_is_signed_verifies_with_the_published_key_alone(house: House) -> None:
    client = await house.client()
    await house.create()
    offer = await client.offered()
    published = (await house.door.get("/.well-known/jwks.json")).json()
    assert published == client.jwks
    (key,) = published["keys"]
    assert (key["kty"], key["crv"], key["use"], key["alg"]) == ("OKP", "Ed25519", "sig", "EdDSA")
    assert "d" not in key, "the private part stays inside"
    assert client.verified(offer["manifest"]).headers()["kid"] == key["kid"]
    for place in (10, len(offer["manifest"]) // 2, -3):
        flipped = list(offer["manifest"])
        flipped[place] = "A" if flipped[place] != "A" else "B"
        assert not _verifies(client, "".join(flipped))


def _verifies(client: Client, signed: str) -> bool:
    try:
        client.verified(signed)
    except ValueError:  # joserfc's errors are its own or the decoder's
        return False
    except Exception as error:
        assert type(error).__module__.startswith("joserfc")
        return False
    return True


async def test_a_work_order_is_under_the_epoch_that_holds_the_lease(house: House) -> None:
    ((client, lease),) = await joined(house)
    await house.say(house.round_started(client))
    first = await client.ordered(lease)
    await client.release(lease)
    house.clock.move(timedelta(seconds=1))
    again = await client.joined()
    second = await client.ordered(again)
    assert (first.lease_epoch, second.lease_epoch) == (1, 2)
    assert second.work_id == first.work_id
    assert (await client.report(lease, first)).status_code == 410
    assert (await client.report(again, second)).status_code == 200
