"""How many clients are asked, which, at which places; who owes; who takes a place over.

- The goal counts what is owed; a client that owes is asked nothing.
- Another attempt asks the same clients at the same places, and fills the gaps.
- A place is taken over with its seed, by an idle client, while there is time for it.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from flowerbed.contracts.round import OwedWork
from flowerbed.orchestrator.cohorts import (
    Sizes,
    can_open,
    closed_without,
    replacements,
    sizes,
    still_owed,
)
from flowerbed.orchestrator.decider import federation
from flowerbed.orchestrator.exchanges import Trained, evaluation_exchange, training_exchange
from flowerbed.orchestrator.state import Member, Pool, Training
from tests.support.federations import BASE, FED, MINUTE, NOON, created, member, pool, spec_of

TEN = pool(*"abcdefghij")
LATE = {"late_updates": "next_round"}
BUFFERED = {"mode": "buffered", "buffer_size": 3}


def owes(name: str, number: int = 1, **more: Any) -> OwedWork:
    return OwedWork(
        client_id=f"client-{name}",
        work_id=f"{FED}.{number}.1.train.client-{name}",
        round_number=number,
        attempt=1,
        base=BASE,
        **more,
    )


def training(p: Pool, policy: dict[str, Any] | None = None, **spec: Any) -> Training:
    written: dict[str, Any] = {"round_policy": policy or {}, **spec}
    started = training_exchange(FED, spec_of(**written), (1, 1), BASE, p, NOON)
    state = federation.replay([created(**written), started])
    assert isinstance(state, Training)
    return state


def names(members: Any) -> str:
    return "".join(one.client_id.removeprefix("client-") for one in members)


@pytest.mark.parametrize(
    ("policy", "spec", "n_owed", "asked_goal_required"),
    [
        ({}, {}, 0, (10, 10, 10)),
        ({}, {"client_fraction": 0.4}, 0, (4, 4, 4)),
        ({"quorum": 0.75}, {}, 0, (10, 10, 8)),
        ({"close_at": 3}, {}, 0, (10, 3, 3)),
        ({"close_at": 3, "quorum": 0.5}, {"client_fraction": 0.4}, 0, (4, 3, 2)),
        ({"close_at": 30}, {}, 0, (10, 10, 10)),
        ({"close_at": 1}, {}, 0, (10, 1, 1)),
        ({"over_select": 1.5}, {"client_fraction": 0.4}, 0, (6, 4, 4)),
        ({"over_select": 2.0, "close_at": 3}, {"client_fraction": 0.4}, 0, (8, 3, 3)),
        (LATE, {}, 3, (7, 10, 10)),
        (LATE, {"client_fraction": 0.5}, 3, (5, 5, 5)),
        (LATE, {"client_fraction": 0.5}, 9, (1, 5, 5)),
        (LATE, {}, 10, (0, 10, 10)),
        (BUFFERED, {}, 0, (10, 3, 3)),
        (BUFFERED, {}, 8, (2, 3, 3)),
        (BUFFERED, {"client_fraction": 0.1}, 0, (3, 3, 3)),
        (BUFFERED, {"client_fraction": 0.1}, 2, (1, 3, 3)),
        ({**BUFFERED, "quorum": 0.5}, {}, 0, (10, 3, 2)),
    ],
)
def test_each_policy_asks_and_closes_by_its_own_numbers(
    policy: dict[str, Any], spec: dict[str, Any], n_owed: int, asked_goal_required: Any
) -> None:
    asked, goal, required = asked_goal_required
    found = sizes(
        spec_of(round_policy=policy, **spec).spec, n_joined=10, n_idle=10 - n_owed, n_owed=n_owed
    )
    assert found == Sizes(n_asked=asked, goal=goal, n_required=required)


@pytest.mark.parametrize(
    ("policy", "n_joined", "opens"),
    [({}, 1, False), ({}, 2, True), (BUFFERED, 2, False), (BUFFERED, 3, True),
     ({"close_at": 1}, 1, False)],
)  # fmt: skip
def test_a_round_needs_enough_joined_clients(
    policy: dict[str, Any], n_joined: int, opens: bool
) -> None:
    assert can_open(spec_of(round_policy=policy), TEN[:n_joined]) is opens


def test_a_round_says_how_its_updates_count() -> None:
    plain = training_exchange(FED, spec_of(), (1, 1), BASE, TEN, NOON)
    assert (plain.owed, plain.work_until, plain.folds_in_order) == ((), None, "cohort")
    policy = {**BUFFERED, "deadline_seconds": 60.0, "staleness_exponent": 1.0, "max_staleness": 4}
    spec = spec_of(round_policy=policy)
    owed = (owes("b"), owes("d"))
    buffered = training_exchange(FED, spec, (2, 1), BASE, TEN, NOON, owed=owed)
    assert (buffered.owed, buffered.folds_in_order) == (owed, "arrival")
    assert (buffered.staleness_exponent, buffered.goal) == (1.0, 3)
    assert buffered.work_until == NOON + 5 * MINUTE
    assert names(buffered.cohort) == "acefghij"


# --- who owes ---------------------------------------------------------------


def test_what_an_exchange_closed_without_is_owed_with_its_own_base_and_end() -> None:
    state = replace(training(pool("a", "b"), LATE), owed=(owes("c"), owes("d")))
    own = f"{FED}.1.1.train.client-b"
    found = closed_without(state, (own, owes("d").work_id, "of another"))
    assert [work.work_id for work in found] == [owes("d").work_id, own]
    assert (found[1].base, found[1].until) == (BASE, state.work_until)


@pytest.mark.parametrize(
    ("policy", "work", "counts"),
    [
        ({}, owes("a"), False),
        (LATE, owes("a"), True),
        (BUFFERED, owes("a"), True),
        (LATE, owes("z"), False),
        ({**LATE, "max_staleness": 2}, owes("a", 3), True),
        ({**LATE, "max_staleness": 2}, owes("a", 2), False),
        (LATE, owes("a", until=NOON), False),
        (LATE, owes("a", until=NOON + MINUTE), True),
    ],
)
def test_late_work_counts_while_policy_staleness_client_and_time_allow(
    policy: dict[str, Any], work: OwedWork, counts: bool
) -> None:
    number = 5 if work.round_number > 1 else 2
    rules = spec_of(round_policy=policy).spec.round_policy
    assert still_owed((work,), rules, number, TEN, NOON) == ((work,) if counts else ())


def test_who_owes_does_not_evaluate_but_its_work_goes_on() -> None:
    owed = (owes("b"),)
    trained = Trained(checkpoint=BASE, n_updates=2, owed=owed)
    started = evaluation_exchange(FED, spec_of(), (1, 1), trained, pool("a", "b", "c"), NOON)
    assert names(started.cohort) == "ac"
    assert (started.goal, started.n_required, started.owed) == (2, 2, owed)


# --- another attempt --------------------------------------------------------


def again(before: Any, p: Pool, attempt: int = 2, **spec: Any) -> Any:
    return training_exchange(
        FED, spec_of(**spec), (1, attempt), BASE, p, NOON, asked_before=before.cohort
    )


def test_another_attempt_asks_the_same_clients_at_the_same_places() -> None:
    first = training_exchange(FED, spec_of(client_fraction=0.4), (1, 1), BASE, TEN, NOON)
    second = again(first, TEN, client_fraction=0.4)
    assert second.cohort == first.cohort


def test_only_the_gaps_are_filled_with_others() -> None:
    first = training_exchange(FED, spec_of(client_fraction=0.4), (1, 1), BASE, TEN, NOON)
    gone = first.cohort[1].client_id
    second = again(first, tuple(m for m in TEN if m.client_id != gone), client_fraction=0.4)
    assert [m.seed for m in second.cohort] == [m.seed for m in first.cohort]
    same = [new == old for new, old in zip(second.cohort, first.cohort, strict=True)]
    assert same == [True, False, True, True]


def test_a_gap_that_nobody_fills_closes_and_its_seed_is_given_to_who_comes_later() -> None:
    first = training_exchange(FED, spec_of(), (1, 1), BASE, pool("a", "b", "c"), NOON)
    second = again(first, pool("a", "c"))
    assert second.cohort == (first.cohort[0], first.cohort[2])
    third = again(second, pool("a", "c", "z"), attempt=3)
    assert names(third.cohort) == "acz"
    assert third.cohort[2].seed == first.cohort[1].seed


def test_who_came_back_is_asked_under_its_new_epoch() -> None:
    first = training_exchange(FED, spec_of(), (1, 1), BASE, pool("a", "b"), NOON)
    second = again(first, (member("a", epoch=2), member("b")))
    assert [m.lease_epoch for m in second.cohort] == [2, 1]
    assert [m.seed for m in second.cohort] == [m.seed for m in first.cohort]


# --- replacement ------------------------------------------------------------


def test_who_left_is_replaced_at_its_place_with_its_seed() -> None:
    state = training(TEN[:4], client_fraction=1.0)
    (found,) = replacements(state, (*TEN[:1], *TEN[2:4], member("z")), NOON)
    assert (found.place, found.client_id) == (1, "client-b")
    assert found.replacement.client_id == "client-z"
    assert found.replacement.seed == state.cohort[1].seed
    after = federation.evolve(state, found)
    assert isinstance(after, Training) and names(after.cohort) == "azcd"
    assert replacements(after, (*TEN[:1], *TEN[2:4], member("z")), NOON) == []


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (TEN[:2], "nobody left"),
        ((member("a", epoch=2), member("b")), "who came back has its own place"),
        (TEN[1:2], "nobody is idle"),
    ],
)
def test_nobody_is_replaced_without_need_or_without_anybody(
    now: tuple[Member, ...], why: str
) -> None:
    assert replacements(training(TEN[:2]), now, NOON) == [], why


def test_as_many_are_replaced_as_there_are_idle_clients() -> None:
    state = training(TEN[:4])
    found = replacements(state, (TEN[0], *pool("x")), NOON)
    assert [(one.place, one.replacement.client_id) for one in found] == [(1, "client-x")]
    found = replacements(state, (TEN[0], *pool("w", "x", "y", "z")), NOON)
    assert [one.place for one in found] == [1, 2, 3]
    assert len({one.replacement.client_id for one in found}) == 3


def test_who_still_owes_work_replaces_nobody() -> None:
    state = replace(training(TEN[:2], LATE), owed=(owes("x"),))
    now = (TEN[0], *pool("x", "y"))
    assert [one.replacement.client_id for one in replacements(state, now, NOON)] == ["client-y"]


def test_late_in_the_round_or_against_the_policy_nobody_is_replaced() -> None:
    now = pool("a", "x")
    state = training(TEN[:2], {"deadline_seconds": 60.0})
    until = NOON + timedelta(seconds=45)
    assert state.replace_until == until
    assert len(replacements(state, now, until - timedelta(seconds=1))) == 1
    assert replacements(state, now, until) == []
    assert replacements(training(TEN[:2], {"replace_dropped": False}), now, NOON) == []
