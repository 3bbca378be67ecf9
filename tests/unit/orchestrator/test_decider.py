"""What a federation does next.

- A submission is one federation, however often it is told.
- A round starts when the base is recorded and enough clients are joined, not before.
- Answers of another round or attempt change nothing.
- A failed evaluation never fails a round; attempts used up fail the federation.
- Paused, no round starts; every wait ends at its deadline.
"""

from datetime import timedelta
from typing import Any

import pytest

from flowerbed.contracts.federation import (
    FederationCancelled,
    FederationCompleted,
    FederationCreated,
    FederationFailed,
    FederationPaused,
    FederationRejected,
    FederationResumed,
    FederationStarted,
)
from flowerbed.contracts.round import (
    RoundCompleted,
    RoundEvaluationStarted,
    RoundFailed,
    RoundStarted,
)
from flowerbed.contracts.values import Problem
from flowerbed.events.errors import NotFound
from flowerbed.events.testing import given
from flowerbed.orchestrator.commands import (
    CancelFederation,
    CheckDeadline,
    Command,
    CompleteEvaluation,
    FailExchange,
    OpenRound,
    PauseFederation,
    RecordCheckpoint,
    ResumeFederation,
    SubmitFederation,
)
from flowerbed.orchestrator.decider import decide, federation
from flowerbed.orchestrator.evolve import OrchestratorEvent
from flowerbed.orchestrator.exchanges import training_exchange
from flowerbed.orchestrator.state import Waiting
from flowerbed.orchestrator.steering import LONGEST_PAUSE, FederationEnded
from tests.support.federations import (
    BASE,
    CODE,
    FED,
    MINUTE,
    NOON,
    created,
    pool,
    ref,
    spec_of,
    started,
)

POOL = pool("a", "b")
OPEN = OpenRound(base=BASE, pool=POOL, at=NOON)


def history(*commands: Command, start: tuple[OrchestratorEvent, ...] = ()) -> list[Any]:
    """The events that these commands lead to, one after another."""
    events: list[OrchestratorEvent] = list(start) or [created()]
    for command in commands:
        events += decide(federation.replay(events), command)
    return events


def checkpoint(number: int, attempt: int = 1, members: Any = POOL) -> RecordCheckpoint:
    return RecordCheckpoint(
        round_number=number,
        attempt=attempt,
        checkpoint=ref(f"r{number}"),
        n_updates=2,
        training={"train-loss": 0.5},
        pool=members,
        at=NOON,
    )


def evaluated(number: int, attempt: int = 1, members: Any = POOL) -> CompleteEvaluation:
    return CompleteEvaluation(
        round_number=number, attempt=attempt, metrics={"accuracy": 0.8}, pool=members, at=NOON
    )


def failed(number: int, attempt: int, exchange: str, members: Any = POOL) -> FailExchange:
    return FailExchange(
        round_number=number, attempt=attempt, exchange=exchange, code="quorum-missed",
        reason="1 of 2 answered", pool=members, at=NOON,
    )  # fmt: skip


def test_an_accepted_submission_is_created_with_its_join_deadline() -> None:
    submit = SubmitFederation(
        federation_id=FED, submission_id="s1", spec=spec_of(), problems=(), code_hash=CODE, at=NOON
    )
    given(federation).when(submit).then(created())


def test_the_same_submission_again_changes_nothing() -> None:
    submit = SubmitFederation(
        federation_id=FED, submission_id="s1", spec=spec_of(), problems=(), code_hash=CODE, at=NOON
    )
    given(federation, created()).when(submit).then_nothing()


def test_a_spec_with_problems_is_rejected_with_all_of_them() -> None:
    problems = (Problem(path="spec.num_rounds", value="0", allowed="at least 1"),)
    submit = SubmitFederation(
        federation_id=FED, submission_id="s1", spec=None, problems=problems, code_hash="", at=NOON
    )
    rejected = FederationRejected(federation_id=FED, submission_id="s1", problems=problems)
    given(federation).when(submit).then(rejected)
    given(federation, rejected).when(submit).then_nothing()


def test_no_round_starts_before_the_base_is_recorded() -> None:
    given(federation, created()).when(OpenRound(base=None, pool=POOL, at=NOON)).then_nothing()


def test_no_round_starts_with_too_few_clients() -> None:
    given(federation, created()).when(OpenRound(base=BASE, pool=POOL[:1], at=NOON)).then_nothing()


def test_the_first_round_starts_with_everything_it_needs() -> None:
    first = training_exchange(FED, spec_of(), (1, 1), BASE, POOL, NOON)
    given(federation, created()).when(OPEN).then(started(), first)
    assert first.deadline_at == NOON + MINUTE
    assert first.config == {
        "server-round": 1, "local-epochs": 1, "batch-size": 32, "learning-rate": 0.01,
    }  # fmt: skip
    assert [one.client_id for one in first.cohort] == ["client-a", "client-b"]


def test_a_federation_runs_to_its_final_checkpoint() -> None:
    events = history(OPEN, checkpoint(1), evaluated(1), checkpoint(2), evaluated(2))
    assert [type(event) for event in events] == [
        FederationCreated, FederationStarted,
        RoundStarted, RoundEvaluationStarted, RoundCompleted,
        RoundStarted, RoundEvaluationStarted, RoundCompleted,
        FederationCompleted,
    ]  # fmt: skip
    assert events[5].base == ref("r1")
    assert events[-1] == FederationCompleted(federation_id=FED, final=ref("r2"), n_rounds=2)
    assert events[4].evaluation == {"accuracy": 0.8}
    assert events[4].training == {"train-loss": 0.5}


def test_where_only_some_tensors_travel_the_first_base_has_the_others() -> None:
    start = (created(update={"trainable": ["*.lora_*"]}), started())
    commands = (OPEN, failed(1, 1, "train"), checkpoint(1, attempt=2), evaluated(1, attempt=2))
    events = history(*commands, checkpoint(2), evaluated(2), start=start)
    exchanges = [one for one in events if isinstance(one, RoundStarted | RoundEvaluationStarted)]
    assert [(one.base, one.frozen) for one in exchanges] == [
        (BASE, None), (BASE, None), (ref("r1"), BASE), (ref("r1"), BASE), (ref("r2"), BASE),
    ]  # fmt: skip
    whole = history(OPEN, checkpoint(1), evaluated(1))
    assert {one.frozen for one in whole if hasattr(one, "frozen")} == {None}


@pytest.mark.parametrize(
    "late",
    [checkpoint(1), checkpoint(2, attempt=2), evaluated(1), failed(1, 1, "train"), OPEN],
)
def test_answers_of_another_round_or_attempt_change_nothing(late: Command) -> None:
    events = history(OPEN, checkpoint(1), evaluated(1))
    given(federation, *events).when(late).then_nothing()


def test_a_failed_attempt_is_followed_by_another_with_the_same_base() -> None:
    events = history(OPEN, failed(1, 1, "train"))
    assert events[-2] == RoundFailed(
        federation_id=FED, round_number=1, attempt=1, code="quorum-missed",
        reason="1 of 2 answered", attempts_left=1, waits_until=NOON + timedelta(hours=1),
    )  # fmt: skip
    assert (events[-1].round_number, events[-1].attempt, events[-1].base) == (1, 2, BASE)


def test_the_federation_fails_when_the_attempts_are_used_up() -> None:
    events = history(OPEN, failed(1, 1, "train"), failed(1, 2, "train"))
    assert isinstance(events[-1], FederationFailed)
    assert events[-1].reason == "round 1 failed 2 of 2 attempts, the last: 1 of 2 answered"


def test_a_failed_attempt_waits_where_too_few_clients_are_left() -> None:
    events = history(OPEN, failed(1, 1, "train", members=POOL[:1]))
    assert isinstance(events[-1], RoundFailed)
    given(federation, *events).when(OPEN).then(
        training_exchange(FED, spec_of(), (1, 2), BASE, POOL, NOON)
    )


def test_a_failed_evaluation_completes_the_round_without_figures() -> None:
    events = history(OPEN, checkpoint(1), failed(1, 1, "evaluate"))
    assert events[-2].evaluation == {}
    assert events[-2].evaluation_error == "1 of 2 answered"
    assert isinstance(events[-1], RoundStarted)


def test_a_checkpoint_with_nobody_left_to_evaluate_completes_the_round() -> None:
    events = history(OPEN, checkpoint(1, members=()))
    assert events[-1].evaluation_error == "no client was joined to evaluate"
    assert isinstance(federation.replay(events), Waiting)


def test_a_base_that_cannot_be_made_fails_the_federation() -> None:
    given(federation, created()).when(failed(0, 1, "initialize")).then(
        FederationFailed(federation_id=FED, code="quorum-missed", reason="1 of 2 answered")
    )


def test_waiting_for_clients_ends_at_the_deadline() -> None:
    late = CheckDeadline(pool=POOL[:1], at=NOON + timedelta(hours=1))
    given(federation, created()).when(late).then(
        FederationFailed(
            federation_id=FED,
            code="too-few-clients",
            reason="1 of 2 clients had joined by 13:00:00",
        )
    )


def test_waiting_for_the_base_says_so_at_the_deadline() -> None:
    late = CheckDeadline(pool=POOL, at=NOON + timedelta(hours=1))
    (end,) = decide(federation.replay([created()]), late)
    assert isinstance(end, FederationFailed)
    assert end.reason == "the base checkpoint was not recorded by 13:00:00"


def test_an_early_look_at_the_deadline_changes_nothing() -> None:
    early = CheckDeadline(pool=POOL, at=NOON)
    given(federation, created()).when(early).then_nothing()
    given(federation, *history(OPEN)).when(early).then_nothing()
    given(federation, *history(OPEN, checkpoint(1))).when(early).then_nothing()


def test_a_silent_aggregator_costs_the_attempt() -> None:
    late = CheckDeadline(pool=POOL, at=NOON + 2 * MINUTE)
    events = history(OPEN, late)
    assert (events[-2].code, events[-1].attempt) == ("aggregator-silent", 2)


def test_a_silent_aggregator_costs_no_round_that_has_its_checkpoint() -> None:
    late = CheckDeadline(pool=POOL, at=NOON + 2 * MINUTE)
    events = history(OPEN, checkpoint(1), late)
    assert events[-2].evaluation_error == "no evaluation 60 s after its deadline"


def pause(at: Any = NOON) -> PauseFederation:
    return PauseFederation(reason="audit", at=at)


RESUME = ResumeFederation(base=BASE, pool=POOL, at=NOON)


def test_a_paused_federation_starts_no_round_until_it_is_resumed() -> None:
    events = history(pause())
    assert events[-1] == FederationPaused(
        federation_id=FED, reason="audit", expires_at=NOON + LONGEST_PAUSE, is_between_rounds=True
    )
    given(federation, *events).when(OPEN).then_nothing()
    given(federation, *events).when(pause()).then_nothing()
    resumed = FederationResumed(federation_id=FED, waits_until=NOON + timedelta(hours=1))
    first = training_exchange(FED, spec_of(), (1, 1), BASE, POOL, NOON)
    given(federation, *events).when(RESUME).then(resumed, started(), first)


def test_an_exchange_that_is_open_at_a_pause_ends_and_none_follows() -> None:
    events = history(OPEN, pause(), pause(), checkpoint(1), evaluated(1))
    assert [type(event) for event in events[3:]] == [
        FederationPaused, RoundEvaluationStarted, RoundCompleted,
    ]  # fmt: skip
    assert events[-1].waits_until == NOON + LONGEST_PAUSE
    given(federation, *events).when(OPEN).then_nothing()
    assert isinstance(history(RESUME, start=tuple(events))[-1], RoundStarted)


def test_resumed_within_an_exchange_the_federation_just_goes_on() -> None:
    events = history(OPEN, pause(), RESUME, checkpoint(1), evaluated(1))
    assert events[4] == FederationResumed(federation_id=FED, waits_until=None)
    assert isinstance(events[-1], RoundStarted)


def test_a_pause_that_nobody_ends_fails_the_federation() -> None:
    late = CheckDeadline(pool=POOL, at=NOON + LONGEST_PAUSE)
    (end,) = decide(federation.replay(history(pause())), late)
    assert isinstance(end, FederationFailed) and end.code == "paused-too-long"


def test_resuming_what_is_not_paused_changes_nothing() -> None:
    given(federation, created()).when(RESUME).then_nothing()
    given(federation, *history(OPEN)).when(RESUME).then_nothing()


def test_cancelling_works_at_any_moment_and_only_once() -> None:
    cancel = CancelFederation(reason="enough")
    cancelled = FederationCancelled(federation_id=FED, reason="enough")
    for events in ([created()], history(OPEN), history(OPEN, checkpoint(1)), history(pause())):
        given(federation, *events).when(cancel).then(cancelled)
        given(federation, *events, cancelled).when(cancel).then_nothing()


@pytest.mark.parametrize("command", [pause(), RESUME, CancelFederation(reason="")])
def test_what_is_over_cannot_be_commanded(command: Command) -> None:
    completed = FederationCompleted(federation_id=FED, final=BASE, n_rounds=2)
    given(federation, created(), completed).when(command).then_rejected(
        FederationEnded, match="the federation is completed and cannot be"
    )
    rejected = FederationRejected(federation_id=FED, submission_id="s", problems=())
    given(federation, rejected).when(command).then_rejected(FederationEnded, match="was rejected")
    given(federation).when(command).then_rejected(NotFound, match="no such federation")


def test_events_of_what_is_over_are_obeyed_without_harm() -> None:
    over: list[OrchestratorEvent] = [created(), FederationCancelled(federation_id=FED), started()]
    assert federation.replay(over) == federation.replay(over[:2])


def test_a_round_that_ends_out_of_place_is_obeyed_without_harm() -> None:
    failed_round = RoundFailed(
        federation_id=FED, round_number=1, attempt=1, code="c", reason="r", attempts_left=1
    )
    done = RoundCompleted(
        federation_id=FED, round_number=1, attempt=1, checkpoint=BASE, n_updates=1
    )
    waiting = federation.replay([created()])
    for event in (failed_round, done):
        assert federation.evolve(waiting, event) == waiting
