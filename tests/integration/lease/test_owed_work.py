"""Training that may count in a later round stays open; whoever leaves hands its place on.

- Owed work survives exactly the events that list it, and is finished before anything newer.
- It runs out when its order says, not when its round closes.
- A place is handed on once, unless who left has answered already.
"""

from datetime import timedelta
from typing import Any

import pytest

from flowerbed.contracts.event import Event
from flowerbed.contracts.ids import lease_id
from flowerbed.contracts.round import (
    CohortMember,
    OwedWork,
    RoundCompleted,
    RoundFailed,
    RoundMemberReplaced,
    RoundStarted,
)
from flowerbed.contracts.signed import WorkOrder
from tests.integration.lease.clients import Client
from tests.integration.lease.conftest import BASE, FED, MINUTE, House
from tests.integration.lease.test_work import joined

LATE = timedelta(hours=1)


def lasting(house: House, *clients: Client, number: int = 1, attempt: int = 1) -> RoundStarted:
    """A round whose work may be answered an hour after it began."""
    started = house.round_started(*clients, number=number, attempt=attempt)
    return started.model_copy(update={"work_until": house.clock.now() + LATE})


def owed(order: WorkOrder) -> dict[str, Any]:
    work = OwedWork(
        client_id=order.client_id,
        work_id=order.work_id,
        round_number=order.round_number,
        attempt=order.attempt,
        base=order.base,
    )
    return {"owed": (work,)}


def completed(number: int) -> RoundCompleted:
    return RoundCompleted(
        federation_id=FED, round_number=number, attempt=1, checkpoint=BASE, n_updates=1
    )


def attempt_failed(number: int, attempt: int = 1) -> RoundFailed:
    return RoundFailed(
        federation_id=FED, round_number=number, attempt=attempt, code="quorum-missed",
        reason="why", attempts_left=1,
    )  # fmt: skip


def replaced(left: Client, replacement: Client) -> RoundMemberReplaced:
    member = CohortMember(
        client_id=replacement.client_id,
        lease_id=lease_id(FED, replacement.client_id),
        lease_epoch=1,
        seed=100,
    )
    return RoundMemberReplaced(
        federation_id=FED, round_number=1, attempt=1, place=0, client_id=left.client_id,
        replacement=member,
    )  # fmt: skip


async def test_owed_work_is_finished_before_anything_newer(house: House) -> None:
    (slow, lease), (quick, other) = await joined(house, 2)
    await house.say(lasting(house, slow, quick))
    order = await slow.ordered(lease)
    await quick.report(other, await quick.ordered(other))
    goes_on: list[Event] = [
        house.evaluation_started(quick).model_copy(update=owed(order)),
        completed(1).model_copy(update=owed(order)),
        lasting(house, quick, number=2).model_copy(update=owed(order)),
        attempt_failed(2),
        lasting(house, quick, number=2, attempt=2).model_copy(update=owed(order)),
    ]
    for n_said, event in enumerate(goes_on, 3):
        await house.say(event)
        await house.until_heard(n_said)
        assert (await slow.ordered(lease)).work_id == order.work_id
    assert (await quick.ordered(other)).work_id == f"{FED}.2.2.train.{quick.client_id}"

    await house.say(house.evaluation_started(slow, number=2).model_copy(update=owed(order)))
    await house.until_heard(8)
    assert (await slow.ordered(lease)).work_id == order.work_id, "one thing after another"
    assert (await slow.report(lease, order)).status_code == 200
    assert (await slow.ordered(lease)).exchange == "evaluate"
    told = (await house.lease_events(slow))[-1][1]
    assert (told["round_number"], told["work_id"]) == (1, order.work_id)


@pytest.mark.parametrize("last", ["round", "evaluation", "completed"])
async def test_work_that_is_owed_no_more_is_closed(house: House, last: str) -> None:
    ((client, lease),) = await joined(house)
    await house.say(lasting(house, client))
    order = await client.ordered(lease)
    ends: dict[str, Event] = {
        "round": lasting(house, number=2),
        "evaluation": house.evaluation_started(),
        "completed": completed(1),
    }
    await house.say(ends[last])
    await house.until_heard(3)
    assert await client.next_work(lease) is None
    assert (await client.report(lease, order)).json()["code"] == "work-closed"


async def test_an_order_lasts_as_long_as_its_work_may_count(house: House) -> None:
    ((client, lease),) = await joined(house)
    started = lasting(house, client)
    await house.say(started)
    assert started.work_until is not None
    order = await client.ordered(lease)
    assert abs(order.exp - started.work_until.timestamp()) <= 1
    await house.say(lasting(house, number=2).model_copy(update=owed(order)))
    await house.until_heard(3)
    house.clock.move(20 * MINUTE)  # past its round's own deadline; the lease lives by asking
    assert (await client.ordered(lease)).work_id == order.work_id
    house.clock.move(LATE)
    assert await client.next_work(lease) is None


async def test_who_left_hands_its_place_on(house: House) -> None:
    (left, lease), (other, spare) = await joined(house, 2)
    await house.say(house.round_started(left))
    lost = await left.ordered(lease)
    await house.say(replaced(left, other))
    taken = await other.ordered(spare)
    assert (taken.work_id, taken.seed) == (f"{FED}.1.1.train.{other.client_id}", lost.seed)
    assert (taken.base, taken.config, taken.exp) == (lost.base, lost.config, lost.exp)
    assert await left.next_work(lease) is None
    assert (await left.report(lease, lost)).json()["code"] == "work-closed"
    assert (await other.report(spare, taken)).status_code == 200


async def test_a_place_whose_client_has_answered_is_not_handed_on(house: House) -> None:
    (left, lease), (other, spare) = await joined(house, 2)
    await house.say(house.round_started(left))
    assert (await left.report(lease, await left.ordered(lease))).status_code == 200
    await house.say(replaced(left, other))
    await house.until_heard(3)
    assert await other.next_work(spare) is None


async def test_a_place_in_an_exchange_that_is_over_is_not_handed_on(house: House) -> None:
    (left, _), (other, spare) = await joined(house, 2)
    await house.say(house.round_started(left))
    await house.say(attempt_failed(1))
    await house.say(replaced(left, other))
    await house.until_heard(4)
    assert await other.next_work(spare) is None
