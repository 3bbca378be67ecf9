"""Rules of an exchange: one answer a piece of work, and when the answers are enough."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flowerbed.aggregator.decider import (
    AcceptUpdate,
    CloseExchange,
    ExchangeEvent,
    ExchangeWaits,
    FailExchange,
    FoldDiffers,
    NotInCohort,
    RefuseLate,
    RejectUpdate,
    Result,
    exchange,
    weighted_means,
)
from flowerbed.aggregator.quorum import Missed, Ripe, Terms, Waiting, due_for_fold, judge
from flowerbed.contracts.aggregate import AggregateCompleted, AggregateFailed, FoldedUpdate
from flowerbed.contracts.ids import work_id
from flowerbed.contracts.round import OwedWork
from flowerbed.contracts.update import (
    CLIENT_LEFT,
    UpdateAccepted,
    UpdateQuarantined,
    UpdateRejected,
)
from flowerbed.contracts.values import ArtifactRef
from flowerbed.events.testing import given

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
OF = {"federation_id": "fed-1", "round_number": 2, "attempt": 1, "exchange": "train"}


def terms(*cohort: str, goal: int | None = None, n_required: int = 2, **more: Any) -> Terms:
    return Terms(
        federation_id="fed-1",
        round_number=2,
        attempt=1,
        exchange="train",
        cohort=cohort,
        goal=len(cohort) if goal is None else goal,
        n_required=n_required,
        deadline_at=NOON,
        **more,
    )


def work(client_id: str, number: int = 2) -> str:
    return work_id("fed-1", number, 1, "train", client_id)


def owed(client_id: str, number: int = 1) -> OwedWork:
    return OwedWork(
        client_id=client_id,
        work_id=work(client_id, number),
        round_number=number,
        attempt=1,
        base=ref(f"base-{number}"),
    )


def ref(name: str) -> ArtifactRef:
    sha256 = name.encode().hex().ljust(64, "0")
    return ArtifactRef(uri=f"s3://flowerbed/updates/{name}", sha256=sha256, size=1)


def accept(
    of: Terms, client_id: str, n_examples: int = 10, number: int = 2, **metrics: float
) -> AcceptUpdate:
    return AcceptUpdate(
        terms=of,
        client_id=client_id,
        work_id=work(client_id, number),
        artifact=ref(client_id),
        n_examples=n_examples,
        metrics=metrics,
        train_seconds=float(n_examples),
        norm=0.5,
    )


def reject(of: Terms, client_id: str, code: str = "not-finite", number: int = 2) -> RejectUpdate:
    return RejectUpdate(
        terms=of, client_id=client_id, work_id=work(client_id, number), code=code, detail="why"
    )


def refuse(of: Terms, client_id: str) -> RefuseLate:
    return RefuseLate(terms=of, client_id=client_id, work_id=work(client_id))


def accepted(
    of: Terms, client_id: str, n_examples: int = 10, number: int = 2, **metrics: float
) -> UpdateAccepted:
    return UpdateAccepted(
        **OF,
        client_id=client_id,
        work_id=work(client_id, number),
        place=of.places[work(client_id, number)],
        artifact=ref(client_id),
        n_examples=n_examples,
        metrics=metrics,
        train_seconds=float(n_examples),
        norm=0.5,
        staleness=2 - number,
        base=None if number == 2 else ref(f"base-{number}"),
    )


def rejected(
    of: Terms, client_id: str, code: str = "not-finite", detail: str = "why", number: int = 2
) -> UpdateRejected:
    return UpdateRejected(
        **OF,
        client_id=client_id,
        work_id=work(client_id, number),
        place=of.places[work(client_id, number)],
        code=code,
        detail=detail,
    )


def close(of: Terms, at: datetime, *places: int) -> CloseExchange:
    result = Result(places=places, checkpoint=ref("next"), state=ref("state"), parents=("0" * 64,))
    return CloseExchange(terms=of, at=at, result=result)


def completed(of: Terms, *updates: tuple[str, int], **more: Any) -> AggregateCompleted:
    return AggregateCompleted(
        **OF,
        checkpoint=ref("next"),
        state=ref("state"),
        parents=("0" * 64,),
        updates=tuple(
            FoldedUpdate(
                client_id=name, place=of.cohort.index(name), sha256=ref(name).sha256, weight=weight
            )
            for name, weight in updates
        ),
        **more,
    )


def end_of(of: Terms, history: Sequence[ExchangeEvent], at: datetime) -> AggregateCompleted:
    """The exchange's end, closed with whatever is ripe."""
    state = exchange.replay(history)
    verdict = judge(state.answers, of, at)
    assert isinstance(verdict, Ripe)
    (event,) = exchange.decide(state, close(of, at, *verdict.places))
    assert isinstance(event, AggregateCompleted)
    return event


FAILED = AggregateFailed(**OF, code="quorum-missed", reason="some")
ABC = terms("a", "b", "c")


def test_a_screened_update_is_accepted_at_its_place_in_the_cohort() -> None:
    given(exchange).when(accept(ABC, "b", loss=0.3)).then(accepted(ABC, "b", loss=0.3))


def test_a_piece_of_work_is_accepted_at_most_once() -> None:
    given(exchange, accepted(ABC, "b")).when(accept(ABC, "b", 99)).then_nothing()


def test_a_refusal_is_final() -> None:
    given(exchange, rejected(ABC, "b")).when(accept(ABC, "b")).then_nothing()
    given(exchange, rejected(ABC, "b")).when(reject(ABC, "b", "wrong-shape")).then_nothing()


def test_a_refusal_says_why() -> None:
    given(exchange).when(reject(ABC, "c", "wrong-shape")).then(rejected(ABC, "c", "wrong-shape"))


@pytest.mark.parametrize("command", [accept(ABC, "x"), reject(ABC, "x")])
def test_a_stranger_is_not_answered(command: AcceptUpdate | RejectUpdate) -> None:
    given(exchange).when(command).then_rejected(NotInCohort, match="x is not in the cohort")


@pytest.mark.parametrize("end", [FAILED, completed(ABC, ("a", 10))])
@pytest.mark.parametrize("command", [accept(ABC, "b"), reject(ABC, "b")])
def test_what_comes_after_the_end_is_late(
    end: ExchangeEvent, command: AcceptUpdate | RejectUpdate
) -> None:
    late = rejected(ABC, "b", "late", "the exchange has what it needs")
    given(exchange, end).when(command).then(late)
    given(exchange, end, late).when(command).then_nothing()


def test_of_over_selected_clients_those_beyond_the_goal_are_late() -> None:
    over = terms("a", "b", "c", goal=2)
    history = [accepted(over, "c"), accepted(over, "a")]
    given(exchange, *history).when(accept(over, "b")).then(
        rejected(over, "b", "late", "the exchange has what it needs")
    )


def test_an_exchange_waits_while_answers_are_outstanding() -> None:
    history = [accepted(ABC, "a"), accepted(ABC, "b")]
    given(exchange, *history).when(close(ABC, NOON - MINUTE, 0, 1)).then_rejected(
        ExchangeWaits, match="waits until 12:00:00 UTC"
    )
    state = exchange.replay(history)
    assert judge(state.answers, ABC, NOON - MINUTE) == Waiting(until=NOON)


def test_it_closes_when_all_have_answered_in_cohort_order() -> None:
    history: list[ExchangeEvent] = [
        accepted(ABC, "c", 30, loss=1.0),
        rejected(ABC, "b"),
        accepted(ABC, "a", 10, loss=3),
    ]
    given(exchange, *history).when(close(ABC, NOON - MINUTE, 0, 2)).then(
        completed(ABC, ("a", 10), ("c", 30), metrics={"loss": 1.5}, train_seconds=30.0)
    )


def test_it_closes_at_the_goal_when_more_were_asked() -> None:
    over = terms("a", "b", "c", goal=2)
    history = [accepted(over, "c"), accepted(over, "a")]
    given(exchange, *history).when(close(over, NOON - MINUTE, 0, 2)).then(
        completed(over, ("a", 10), ("c", 10), train_seconds=10.0, owing=(work("b"),))
    )


def test_it_closes_at_the_deadline_with_a_quorum() -> None:
    history = [accepted(ABC, "a"), accepted(ABC, "c")]
    given(exchange, *history).when(close(ABC, NOON, 0, 2)).then(
        completed(ABC, ("a", 10), ("c", 10), train_seconds=10.0, owing=(work("b"),))
    )


def test_below_the_quorum_at_the_deadline_it_fails_and_names_who_is_missing() -> None:
    given(exchange, accepted(ABC, "b"), rejected(ABC, "c")).when(close(ABC, NOON, 1)).then(
        AggregateFailed(
            **OF,
            code="quorum-missed",
            reason="1 of 2 required updates accepted; missing: a (no answer), c (not-finite)",
        )
    )


def test_a_quorum_out_of_reach_fails_before_the_deadline() -> None:
    history = [rejected(ABC, "a"), rejected(ABC, "b", "app-failed")]
    events = exchange.decide(exchange.replay(history), close(ABC, NOON - MINUTE))
    assert [event.type for event in events] == ["fl.aggregate.failed"]


def test_who_left_an_evaluation_is_not_counted_among_those_whom_it_needs() -> None:
    everyone = terms("a", "b", "c", n_required=3)
    history: list[ExchangeEvent] = [
        accepted(everyone, "a"),
        rejected(everyone, "b", CLIENT_LEFT),
    ]
    waiting = exchange.replay(history).answers
    assert judge(waiting, everyone, NOON - MINUTE) == Waiting(until=NOON)
    all_there = exchange.replay([*history, accepted(everyone, "c")]).answers
    assert judge(all_there, everyone, NOON - MINUTE) == Ripe(places=(0, 2))
    refused = exchange.replay([*history, rejected(everyone, "c", "app-failed")]).answers
    assert isinstance(judge(refused, everyone, NOON - MINUTE), Missed), "who stays must answer"
    alone = exchange.replay([rejected(terms("a", n_required=1), "a", CLIENT_LEFT)]).answers
    assert isinstance(judge(alone, terms("a", n_required=1), NOON - MINUTE), Missed)


def test_a_fold_of_other_updates_than_those_accepted_is_refused() -> None:
    history = [accepted(ABC, "a"), accepted(ABC, "b"), accepted(ABC, "c")]
    given(exchange, *history).when(close(ABC, NOON, 0, 1)).then_rejected(
        FoldDiffers, match=r"folded places \(0, 1\), accepted are \(0, 1, 2\)"
    )


def test_an_evaluation_closes_without_a_checkpoint() -> None:
    of = replace(ABC, exchange="evaluate", n_required=1)
    asked = [replace(accept(of, name, accuracy=0.5), work_id=of.work_of(name)) for name in "ab"]
    state = exchange.replay(e for one in asked for e in exchange.decide(exchange.initial, one))
    (event,) = exchange.decide(state, CloseExchange(terms=of, at=NOON))
    assert isinstance(event, AggregateCompleted)
    assert (event.checkpoint, event.state, event.metrics) == (None, None, {"accuracy": 0.5})
    assert event.owing == ()  # nobody waits for an evaluation that comes later


def test_nobody_is_asked_to_initialize_so_it_is_ripe_at_once() -> None:
    initialize = terms(goal=0, n_required=0)
    assert judge(exchange.initial.answers, initialize, NOON - MINUTE) == Ripe(places=())


def test_an_exchange_ends_once() -> None:
    end = completed(ABC, ("a", 10))
    fail = FailExchange(terms=ABC, code="internal", reason="it broke")
    given(exchange, end).when(close(ABC, NOON, 0)).then_nothing()
    given(exchange, end).when(fail).then_nothing()
    given(exchange).when(fail).then(AggregateFailed(**OF, code="internal", reason="it broke"))


def test_a_quarantined_update_is_not_in_the_aggregate() -> None:
    held = UpdateQuarantined(
        **OF, client_id="a", work_id=work("a"), place=0, artifact=ref("a"), code="outlier"
    )
    history: list[ExchangeEvent] = [held, accepted(ABC, "b"), accepted(ABC, "c")]
    given(exchange, *history).when(close(ABC, NOON, 1, 2)).then(
        completed(ABC, ("b", 10), ("c", 10), train_seconds=10.0)
    )


def test_metrics_are_weighted_over_those_who_reported_them() -> None:
    reports = [(10, {"loss": 1.0, "auroc": 0.7, "num-examples": 10.0}), (30, {"loss": 2.0})]
    assert weighted_means(reports) == {"auroc": 0.7, "loss": 1.75}


# --- late updates -------------------------------------------------------------------------------

LATER = terms("a", "b", owed=(owed("c"),), counts_late=True)
"""Round 2, with work of round 1 that c still owes."""


def test_an_owed_update_is_accepted_behind_the_cohort_with_its_base_and_staleness() -> None:
    (event,) = exchange.decide(exchange.initial, accept(LATER, "c", number=1))
    assert event == accepted(LATER, "c", number=1)
    assert isinstance(event, UpdateAccepted)
    assert (event.place, event.staleness, event.base) == (2, 1, ref("base-1"))


def test_an_owed_update_may_be_refused_as_any_other() -> None:
    given(exchange).when(reject(LATER, "c", number=1)).then(rejected(LATER, "c", number=1))


def test_a_client_may_answer_for_what_it_owed_and_for_its_own_place() -> None:
    both = terms("a", "b", owed=(owed("a"),), counts_late=True)
    history = [accepted(both, "a", number=1)]
    given(exchange, *history).when(accept(both, "a")).then(accepted(both, "a"))
    given(exchange, *history).when(accept(both, "a", number=1)).then_nothing()


def test_late_updates_count_towards_the_goal() -> None:
    history = [accepted(LATER, "c", 30, number=1), accepted(LATER, "b", 10)]
    event = end_of(LATER, history, NOON - MINUTE)
    folded = [(one.client_id, one.place, one.weight, one.staleness) for one in event.updates]
    assert folded == [("b", 1, 10, 0), ("c", 2, 30, 1)]
    assert event.owing == (work("a"),)


def test_nobody_waits_for_owed_work_once_the_cohort_has_answered() -> None:
    of = terms("a", "b", goal=3, owed=(owed("d"), owed("c")), counts_late=True)
    event = end_of(of, [accepted(of, "b"), accepted(of, "a")], NOON - MINUTE)
    assert [one.client_id for one in event.updates] == ["a", "b"]
    assert event.owing == (work("d", 1), work("c", 1))


def test_but_owed_work_may_fill_a_quorum_until_the_deadline() -> None:
    history: list[ExchangeEvent] = [accepted(LATER, "a"), rejected(LATER, "b")]
    state = exchange.replay(history)
    assert judge(state.answers, LATER, NOON - MINUTE) == Waiting(until=NOON)
    missed = judge(state.answers, LATER, NOON)
    assert isinstance(missed, Missed)
    assert missed.reason.endswith("missing: b (not-finite), c of round 1 (no answer)")
    assert end_of(LATER, [*history, accepted(LATER, "c", number=1)], NOON - MINUTE).owing == ()


def test_beyond_the_goal_an_update_stays_without_an_answer_where_late_ones_count() -> None:
    of = terms("a", "b", "d", goal=2, owed=(owed("c"),), counts_late=True)
    history = [accepted(of, "b"), accepted(of, "a")]
    given(exchange, *history).when(accept(of, "d")).then_nothing()
    given(exchange, *history).when(accept(of, "c", number=1)).then_nothing()
    assert end_of(of, history, NOON - MINUTE).owing == (work("d"), work("c", 1))


def test_after_the_end_it_stays_without_an_answer_until_no_round_can_count_it() -> None:
    end = completed(LATER, ("a", 10))
    given(exchange, end).when(accept(LATER, "b")).then_nothing()
    given(exchange, end).when(reject(LATER, "b")).then_nothing()
    late = rejected(LATER, "b", "late", "no round counts it any more")
    given(exchange, end).when(refuse(LATER, "b")).then(late)
    given(exchange, end, late).when(refuse(LATER, "b")).then_nothing()
    given(exchange, accepted(LATER, "b"), end).when(refuse(LATER, "b")).then_nothing()


def test_in_a_buffered_round_the_updates_are_folded_as_they_came() -> None:
    of = terms("a", "b", goal=3, owed=(owed("c"),), counts_late=True, folds_in_order="arrival")
    history = [accepted(of, "b"), accepted(of, "c", number=1), accepted(of, "a")]
    assert [one.place for one in end_of(of, history, NOON - MINUTE).updates] == [1, 2, 0]
    assert [one.place for one in due_for_fold(exchange.replay(history).answers, of)] == [1, 2, 0]


def test_what_no_answer_to_come_can_change_may_be_folded_already() -> None:
    def due(*history: ExchangeEvent) -> list[int]:
        return [one.place for one in due_for_fold(exchange.replay(history).answers, LATER)]

    late = accepted(LATER, "c", number=1)
    assert due(late) == due(late, accepted(LATER, "b")) == []
    assert due(late, accepted(LATER, "a")) == [0]
    assert due(late, accepted(LATER, "a"), rejected(LATER, "b")) == [0, 2]


# --- replaced members ---------------------------------------------------------------------------

REPLACED = terms("a", "x", replaced=((1, "b"),))
"""x has b's place."""


@pytest.mark.parametrize(("first", "second"), [("b", "x"), ("x", "b")])
def test_whoever_of_a_places_clients_answers_first_has_answered_for_it(
    first: str, second: str
) -> None:
    taken = rejected(REPLACED, second, "late", "another client answered in its place")
    for answer in (accepted(REPLACED, first), rejected(REPLACED, first)):
        given(exchange, answer).when(accept(REPLACED, second)).then(taken)
        given(exchange, answer, taken).when(accept(REPLACED, second)).then_nothing()
    assert accepted(REPLACED, first).place == accepted(REPLACED, second).place == 1


def test_the_one_who_left_is_not_waited_for_and_owes_nothing() -> None:
    closed = end_of(REPLACED, [accepted(REPLACED, "a"), accepted(REPLACED, "x")], NOON - MINUTE)
    assert closed.owing == ()
    short = end_of(replace(REPLACED, n_required=1), [accepted(REPLACED, "a")], NOON)
    assert short.owing == (work("x"),)
    still = end_of(REPLACED, [accepted(REPLACED, "a"), accepted(REPLACED, "b")], NOON - MINUTE)
    assert still.owing == ()
