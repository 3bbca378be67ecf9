"""Rules of an exchange: one answer a client, and when the answers are enough."""

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
    RejectUpdate,
    Result,
    exchange,
    weighted_means,
)
from flowerbed.aggregator.quorum import Ripe, Terms, Waiting, judge
from flowerbed.contracts.aggregate import AggregateCompleted, AggregateFailed, FoldedUpdate
from flowerbed.contracts.update import UpdateAccepted, UpdateQuarantined, UpdateRejected
from flowerbed.contracts.values import ArtifactRef
from flowerbed.events.testing import given

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
OF = {"federation_id": "fed-1", "round_number": 2, "attempt": 1, "exchange": "train"}


def terms(*cohort: str, goal: int | None = None, n_required: int = 2) -> Terms:
    return Terms(
        federation_id="fed-1",
        round_number=2,
        attempt=1,
        exchange="train",
        cohort=cohort,
        goal=len(cohort) if goal is None else goal,
        n_required=n_required,
        deadline_at=NOON,
    )


def ref(client_id: str) -> ArtifactRef:
    sha256 = client_id.encode().hex().ljust(64, "0")
    return ArtifactRef(uri=f"s3://flowerbed/updates/{client_id}", sha256=sha256, size=1)


def accept(of: Terms, client_id: str, n_examples: int = 10, **metrics: float) -> AcceptUpdate:
    return AcceptUpdate(
        terms=of,
        client_id=client_id,
        work_id=f"work-{client_id}",
        artifact=ref(client_id),
        n_examples=n_examples,
        metrics=metrics,
        train_seconds=float(n_examples),
        norm=0.5,
    )


def reject(of: Terms, client_id: str, code: str = "not-finite") -> RejectUpdate:
    return RejectUpdate(
        terms=of, client_id=client_id, work_id=f"work-{client_id}", code=code, detail="why"
    )


def accepted(of: Terms, client_id: str, n_examples: int = 10, **metrics: float) -> UpdateAccepted:
    return UpdateAccepted(
        **OF,
        client_id=client_id,
        work_id=f"work-{client_id}",
        place=of.cohort.index(client_id),
        artifact=ref(client_id),
        n_examples=n_examples,
        metrics=metrics,
        train_seconds=float(n_examples),
        norm=0.5,
    )


def rejected(
    of: Terms, client_id: str, code: str = "not-finite", detail: str = "why"
) -> UpdateRejected:
    return UpdateRejected(
        **OF,
        client_id=client_id,
        work_id=f"work-{client_id}",
        place=of.cohort.index(client_id),
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


FAILED = AggregateFailed(**OF, code="quorum-missed", reason="some")
ABC = terms("a", "b", "c")


def test_a_screened_update_is_accepted_at_its_place_in_the_cohort() -> None:
    given(exchange).when(accept(ABC, "b", loss=0.3)).then(accepted(ABC, "b", loss=0.3))


def test_a_client_is_accepted_at_most_once() -> None:
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
        completed(over, ("a", 10), ("c", 10), train_seconds=10.0)
    )


def test_it_closes_at_the_deadline_with_a_quorum() -> None:
    history = [accepted(ABC, "a"), accepted(ABC, "c")]
    given(exchange, *history).when(close(ABC, NOON, 0, 2)).then(
        completed(ABC, ("a", 10), ("c", 10), train_seconds=10.0)
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


def test_a_fold_of_other_updates_than_those_accepted_is_refused() -> None:
    history = [accepted(ABC, "a"), accepted(ABC, "b"), accepted(ABC, "c")]
    given(exchange, *history).when(close(ABC, NOON, 0, 1)).then_rejected(
        FoldDiffers, match=r"folded places \(0, 1\), accepted are \(0, 1, 2\)"
    )


def test_an_evaluation_closes_without_a_checkpoint() -> None:
    history = [accepted(ABC, name, 10, accuracy=0.5) for name in ABC.cohort]
    (event,) = exchange.decide(exchange.replay(history), CloseExchange(terms=ABC, at=NOON))
    assert isinstance(event, AggregateCompleted)
    assert (event.checkpoint, event.state, event.metrics) == (None, None, {"accuracy": 0.5})


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
        **OF, client_id="a", work_id="w", place=0, artifact=ref("a"), code="outlier"
    )
    history: list[ExchangeEvent] = [held, accepted(ABC, "b"), accepted(ABC, "c")]
    given(exchange, *history).when(close(ABC, NOON, 1, 2)).then(
        completed(ABC, ("b", 10), ("c", 10), train_seconds=10.0)
    )


def test_metrics_are_weighted_over_those_who_reported_them() -> None:
    reports = [(10, {"loss": 1.0, "auroc": 0.7, "num-examples": 10.0}), (30, {"loss": 2.0})]
    assert weighted_means(reports) == {"auroc": 0.7, "loss": 1.75}
