"""What becomes of a federation under each round policy, and when a person changes it.

- Work that an exchange closed without goes along while it may count, and is never ordered twice.
- A failed attempt's own work is not owed: the next attempt orders it again.
- A changed policy is followed from the next exchange on; a bad one changes nothing.
"""

from datetime import timedelta
from typing import Any

import pytest

from flowerbed.contracts.federation import (
    FederationCompleted,
    FederationCreated,
    FederationFailed,
    FederationPolicyChanged,
    FederationRejected,
)
from flowerbed.contracts.round import (
    RoundCompleted,
    RoundEvaluationStarted,
    RoundFailed,
    RoundMemberReplaced,
    RoundStarted,
)
from flowerbed.events.errors import NotFound
from flowerbed.events.testing import given
from flowerbed.orchestrator.commands import (
    CancelFederation,
    ChangePolicy,
    CheckDeadline,
    Command,
    CompleteEvaluation,
    FailExchange,
    OpenRound,
    PauseFederation,
    RecordCheckpoint,
    ReplaceMembers,
    ResumeFederation,
    SubmitFederation,
)
from flowerbed.orchestrator.decider import decide, federation
from flowerbed.orchestrator.state import Evaluating, Pool, Training, Waiting, policy_of
from flowerbed.orchestrator.steering import FederationEnded, PolicyRefused
from tests.support.federations import BASE, CODE, FED, MINUTE, NOON, created, pool, ref, spec_of

LATE = {"late_updates": "next_round", "deadline_seconds": 60.0, "max_attempts": 2}
ALL = pool("a", "b", "c")
HOUR = timedelta(hours=1)


def history(*commands: Command, **spec: Any) -> list[Any]:
    events: list[Any] = [created(**spec)]
    for command in commands:
        events += decide(federation.replay(events), command)
    return events


def opened(members: Pool = ALL) -> OpenRound:
    return OpenRound(base=BASE, pool=members, at=NOON)


def work(name: str, number: int = 1, attempt: int = 1) -> str:
    return f"{FED}.{number}.{attempt}.train.client-{name}"


def trained(number: int, *owing: str, attempt: int = 1, members: Pool = ALL) -> RecordCheckpoint:
    return RecordCheckpoint(
        round_number=number, attempt=attempt, checkpoint=ref(f"r{number}"), n_updates=2,
        training={}, pool=members, at=NOON, owing=owing,
    )  # fmt: skip


def evaluated(number: int, attempt: int = 1, members: Pool = ALL) -> CompleteEvaluation:
    return CompleteEvaluation(
        round_number=number, attempt=attempt, metrics={}, pool=members, at=NOON
    )


def missed(number: int, attempt: int = 1, members: Pool = ALL) -> FailExchange:
    return FailExchange(
        round_number=number, attempt=attempt, exchange="train", code="quorum-missed",
        reason="why", pool=members, at=NOON,
    )  # fmt: skip


def names(members: Any) -> str:
    return "".join(sorted(one.client_id.removeprefix("client-") for one in members))


def last(events: list[Any], kind: type) -> Any:
    return [event for event in events if isinstance(event, kind)][-1]


# --- late updates -----------------------------------------------------------


def test_late_work_goes_on_through_the_evaluation_into_the_next_round() -> None:
    events = history(opened(), trained(1, work("c")), evaluated(1), round_policy=LATE)
    evaluation, done, second = (
        last(events, kind) for kind in (RoundEvaluationStarted, RoundCompleted, RoundStarted)
    )
    assert [one.work_id for one in evaluation.owed] == [work("c")]
    assert names(evaluation.cohort) == "ab"
    assert done.owed == evaluation.owed == second.owed
    assert (names(second.cohort), second.goal) == ("ab", 3)
    assert second.owed[0].base == BASE and second.base == ref("r1")


def test_who_has_answered_late_is_asked_again() -> None:
    events = history(
        opened(), trained(1, work("c")), evaluated(1), trained(2, work("b", 2)), evaluated(2),
        round_policy=LATE, num_rounds=3,
    )  # fmt: skip
    third = last(events, RoundStarted)
    assert (names(third.cohort), names(third.owed)) == ("ac", "b")


def test_a_failed_attempt_orders_its_own_work_again_and_keeps_what_was_owed_before() -> None:
    events = history(opened(), trained(1, work("c")), evaluated(1), missed(2), round_policy=LATE)
    again = last(events, RoundStarted)
    assert (again.round_number, again.attempt, names(again.cohort)) == (2, 2, "ab")
    assert [one.work_id for one in again.owed] == [work("c")]


def test_a_policy_that_refuses_late_updates_owes_nothing() -> None:
    events = history(opened(), trained(1, work("c")), evaluated(1))
    assert last(events, RoundEvaluationStarted).owed == ()
    assert names(last(events, RoundStarted).cohort) == "abc"


def test_after_the_last_round_nothing_is_owed_and_everybody_evaluates() -> None:
    events = history(opened(), trained(1, work("c")), round_policy=LATE, num_rounds=1)
    assert (names(events[-1].cohort), events[-1].owed) == ("abc", ())


def test_work_of_who_left_or_is_too_stale_is_owed_no_more() -> None:
    left = pool("a", "b")
    events = history(opened(), trained(1, work("c")), evaluated(1, members=left), round_policy=LATE)
    assert last(events, RoundCompleted).owed == ()
    stale = history(
        opened(), trained(1, work("c")), evaluated(1), trained(2, work("c")), evaluated(2),
        round_policy={**LATE, "max_staleness": 1}, num_rounds=3,
    )  # fmt: skip
    assert last(stale, RoundEvaluationStarted).owed == ()
    assert names(last(stale, RoundStarted).cohort) == "abc"


def test_a_round_whose_clients_all_still_train_goes_on_without_an_evaluation() -> None:
    both = pool("a", "b")
    events = history(
        opened(both),
        trained(1, work("a"), work("b"), members=both),
        round_policy={**LATE, "quorum": 0.5},
    )
    done, second = events[-2:]
    assert isinstance(done, RoundCompleted)
    assert done.evaluation_error == "every joined client is still training"
    assert isinstance(second, RoundStarted)
    assert (second.cohort, names(second.owed), second.goal, second.n_required) == ((), "ab", 2, 1)


# --- buffered rounds --------------------------------------------------------


def test_a_buffered_round_asks_every_idle_client_and_the_others_train_on() -> None:
    policy = {"mode": "buffered", "buffer_size": 1, "deadline_seconds": 60.0}
    events = history(
        opened(),
        trained(1, work("b"), work("c")), evaluated(1),
        trained(2, work("a", 2), work("c")), evaluated(2),
        round_policy=policy, num_rounds=4, min_clients=1,
    )  # fmt: skip
    rounds = [event for event in events if isinstance(event, RoundStarted)]
    assert [(names(one.cohort), names(one.owed)) for one in rounds] == [
        ("abc", ""), ("a", "bc"), ("b", "ac"),
    ]  # fmt: skip
    assert {(one.goal, one.n_required, one.folds_in_order) for one in rounds} == {(1, 1, "arrival")}


def test_a_buffered_federation_waits_for_as_many_clients_as_the_buffer_holds() -> None:
    policy = {"mode": "buffered", "buffer_size": 3, "join_deadline_seconds": 3600.0}
    given(federation, created(round_policy=policy)).when(opened(pool("a", "b"))).then_nothing()
    late = CheckDeadline(pool=pool("a", "b"), at=NOON + HOUR)
    (end,) = decide(federation.replay([created(round_policy=policy)]), late)
    assert isinstance(end, FederationFailed)
    assert end.reason == "2 of 3 clients had joined by 13:00:00"


# --- replacement ------------------------------------------------------------


def test_who_leaves_the_open_training_is_replaced_once_another_is_there() -> None:
    events = history(opened(pool("a", "b")))
    left = ReplaceMembers(pool=pool("a"), at=NOON)
    given(federation, *events).when(left).then_nothing()
    replaced = decide(federation.replay(events), ReplaceMembers(pool=pool("a", "x"), at=NOON))
    (one,) = replaced
    assert isinstance(one, RoundMemberReplaced)
    assert (one.client_id, one.replacement.client_id) == ("client-b", "client-x")
    assert one.reason == "client-b left the federation"
    given(federation, *events, one).when(
        ReplaceMembers(pool=pool("a", "b", "x"), at=NOON)
    ).then_nothing()
    second = history(opened(pool("a", "b")), ReplaceMembers(pool=pool("a", "x"), at=NOON))
    again = decide(federation.replay(second), missed(1, members=pool("a", "b", "x")))[-1]
    assert isinstance(again, RoundStarted)
    assert [m.client_id for m in again.cohort][:2] == ["client-a", "client-x"]


def test_nobody_is_replaced_outside_of_a_training() -> None:
    change = ReplaceMembers(pool=pool("x", "y"), at=NOON)
    given(federation).when(change).then_nothing()
    given(federation, created()).when(change).then_nothing()
    given(federation, *history(opened(), trained(1))).when(change).then_nothing()


def test_a_replacement_that_is_told_too_late_is_obeyed_without_harm() -> None:
    events = history(opened(pool("a", "b")), ReplaceMembers(pool=pool("a", "x"), at=NOON))
    waiting = federation.replay([created()])
    assert federation.evolve(waiting, events[-1]) == waiting


# --- a changed policy -------------------------------------------------------


def change(members: Pool = ALL, at: Any = NOON, base: Any = BASE, **changes: Any) -> ChangePolicy:
    return ChangePolicy(changes=changes, reason="slow site", base=base, pool=members, at=at)


def test_a_wait_for_clients_is_counted_anew_under_the_new_policy() -> None:
    later = NOON + 10 * MINUTE
    events = history(change(pool("a"), at=later, join_deadline_seconds=600, closeAt=2))
    (event,) = events[1:]
    assert isinstance(event, FederationPolicyChanged)
    assert event.changed == ("close_at", "join_deadline_seconds")
    assert (event.reason, event.waits_until) == ("slow site", later + 10 * MINUTE)
    state = federation.replay(events)
    assert isinstance(state, Waiting) and state.until == event.waits_until
    assert policy_of(state) == event.round_policy
    assert policy_of(state).deadline_seconds == 60.0, "what was not changed is as it was"


def test_a_policy_that_needs_fewer_clients_starts_the_round_at_once() -> None:
    buffered = {"mode": "buffered", "buffer_size": 4}
    events = history(opened(), change(buffer_size=2), round_policy=buffered)
    assert [type(event).type for event in events[1:]] == [
        "fl.federation.policy_changed", "fl.federation.started", "fl.round.started",
    ]  # fmt: skip
    assert events[-1].goal == 2


def test_an_open_exchange_keeps_its_time_outs_and_the_next_has_the_new_ones() -> None:
    events = history(opened(), change(deadline_seconds=600, max_attempts=5))
    before, after = federation.replay(events[:-1]), federation.replay(events)
    assert isinstance(before, Training) and isinstance(after, Training)
    assert events[-1].waits_until is None
    assert (after.deadline_at, after.give_up_at) == (before.deadline_at, before.give_up_at)
    evaluation = decide(after, trained(1))[-1]
    assert isinstance(evaluation, RoundEvaluationStarted)
    assert evaluation.deadline_at == NOON + 10 * MINUTE
    left = [event for event in decide(after, missed(1)) if isinstance(event, RoundFailed)]
    assert left[0].attempts_left == 4


def test_a_policy_changed_to_refuse_late_updates_lets_go_of_what_is_owed() -> None:
    events = history(
        opened(), trained(1, work("c")), change(late_updates="refuse"), evaluated(1),
        round_policy=LATE,
    )  # fmt: skip
    assert last(events, RoundCompleted).owed == () == last(events, RoundStarted).owed
    assert names(last(events, RoundStarted).cohort) == "abc"


def test_the_policy_of_a_paused_federation_changes_and_it_stays_paused() -> None:
    paused = PauseFederation(reason="", at=NOON)
    events = history(paused, change(quorum=0.5))
    assert events[-1].waits_until is None
    before, after = federation.replay(events[:-1]), federation.replay(events)
    assert isinstance(before, Waiting) and isinstance(after, Waiting)
    assert after.is_paused and after.until == before.until


def test_a_change_that_changes_nothing_is_no_event() -> None:
    given(federation, created()).when(change(quorum=1, max_attempts=2)).then_nothing()
    given(federation, created()).when(change()).then_nothing()


@pytest.mark.parametrize(
    "changes",
    [{"quorum": 2}, {"colour": "red"}, {"mode": "buffered"}, {"close_at": 2, "closeAt": 2}],
)
def test_a_policy_with_broken_rules_changes_nothing(changes: dict[str, Any]) -> None:
    with pytest.raises(PolicyRefused, match="1 broken rule in the policy") as refused:
        decide(federation.replay([created()]), change(**changes))
    (problem,) = refused.value.errors
    assert set(problem) == {"path", "value", "allowed"}


def test_every_broken_rule_is_named() -> None:
    with pytest.raises(PolicyRefused, match="2 broken rules") as refused:
        decide(federation.replay([created()]), change(quorum=2, close_at=0))
    assert [one["path"] for one in refused.value.errors] == [
        "round_policy.close_at", "round_policy.quorum",
    ]  # fmt: skip


def test_a_policy_under_which_the_strategy_cannot_work_changes_nothing() -> None:
    strategy = {"name": "krum", "params": {"num_malicious_nodes": 1}}
    state = federation.replay([created(min_clients=6, strategy=strategy)])
    for changes in ({"quorum": 0.5}, {"late_updates": "next_round"}, {"close_at": 4}):
        with pytest.raises(PolicyRefused, match="1 broken rule in the policy") as refused:
            decide(state, change(**changes))
        (problem,) = refused.value.errors
        assert problem["path"] == "round_policy" and problem["allowed"].startswith("krum ")
    assert decide(state, change(quorum=0.8))


def test_what_is_over_keeps_its_policy() -> None:
    completed = FederationCompleted(federation_id=FED, final=BASE, n_rounds=2)
    given(federation, created(), completed).when(change(quorum=0.5)).then_rejected(
        FederationEnded, match="is completed and cannot be given another policy"
    )
    rejected = FederationRejected(federation_id=FED, submission_id="s", problems=())
    given(federation, rejected).when(change(quorum=0.5)).then_rejected(
        FederationEnded, match="was rejected"
    )
    given(federation).when(change(quorum=0.5)).then_rejected(NotFound, match="no such federation")


# --- beside replicas of the release before ----------------------------------


def test_beside_older_replicas_a_federation_is_created_in_the_words_that_they_read() -> None:
    submit = SubmitFederation(
        federation_id=FED, submission_id="s1", spec=spec_of(), problems=(), code_hash=CODE, at=NOON,
        is_upgraded=False,
    )  # fmt: skip
    (event,) = decide(federation.initial, submit)
    assert isinstance(event, FederationCreated)
    assert event.spec == spec_of().brief() != spec_of().document()
    assert event.federation_spec == spec_of()


# --- commands at any moment -------------------------------------------------


@pytest.mark.parametrize("n_commands", range(6))
def test_pause_resume_and_cancel_work_at_any_moment_with_owed_work_too(n_commands: int) -> None:
    way: list[Command] = [
        opened(), trained(1, work("c")), evaluated(1), missed(2, members=ALL[:1]), opened(),
    ]  # fmt: skip
    events = history(*way[:n_commands], round_policy=LATE)
    before = federation.replay(events)
    assert isinstance(before, Waiting | Training | Evaluating)
    paused = [*events, *decide(before, PauseFederation(reason="", at=NOON))]
    resume = ResumeFederation(base=BASE, pool=ALL, at=NOON)
    resumed = [*paused, *decide(federation.replay(paused), resume)]
    owed = [getattr(federation.replay(one), "owed", ()) for one in (events, paused, resumed)]
    assert owed[0] == owed[1] == owed[2]
    for one in (events, paused, resumed):
        (end,) = decide(federation.replay(one), CancelFederation(reason=""))
        assert end.type == "fl.federation.cancelled"
