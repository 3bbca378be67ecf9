"""From events to facts: where a federation stands, who owes what, and what its last error was."""

from datetime import timedelta
from typing import Any

import pytest

from flowerbed.contracts.aggregate import AggregateFailed
from flowerbed.contracts.client import ClientDeclined
from flowerbed.contracts.event import Event
from flowerbed.contracts.federation import (
    FederationFailed,
    FederationPaused,
    FederationPolicyChanged,
    FederationResumed,
)
from flowerbed.contracts.ids import work_id
from flowerbed.contracts.policy import RoundPolicy
from flowerbed.contracts.round import (
    CohortMember,
    OwedWork,
    RoundCompleted,
    RoundEvaluationStarted,
    RoundFailed,
    RoundMemberReplaced,
    RoundStarted,
)
from flowerbed.contracts.update import UpdateAccepted, UpdateFailed, UpdateRejected, UpdateSubmitted
from flowerbed.gateway.why.errors import last_error
from flowerbed.gateway.why.facts import Between, Client, Exchange, Starting
from flowerbed.gateway.why.folding import Told, declines, standing, with_decline
from tests.integration.gateway.story import FED, NOON, Story, ref

SPARE = Starting(since=NOON, until=None)
UNTIL = NOON + timedelta(hours=2)


def told(*events: Event) -> list[Any]:
    story = Story()
    for event in events:
        story.tell("any", event)
    return story.told


def member(client: str) -> CohortMember:
    return CohortMember(client_id=client, lease_id=f"lease-{client}", lease_epoch=1, seed=7)


def owed(client: str, number: int) -> OwedWork:
    identity = work_id(FED, number, 1, "train", client)
    return OwedWork(
        client_id=client, work_id=identity, round_number=number, attempt=1, base=ref("old")
    )


def started(*clients: str, owing: tuple[OwedWork, ...] = ()) -> RoundStarted:
    return RoundStarted(
        federation_id=FED, round_number=2, attempt=1, base=ref("base"),
        cohort=tuple(map(member, clients)), goal=2, n_required=1, deadline_at=UNTIL, seed=7,
        config={}, owed=owing,
    )  # fmt: skip


def of_work(client: str, number: int = 2) -> dict[str, Any]:
    return {
        "federation_id": FED, "round_number": 2, "attempt": 1, "exchange": "train",
        "client_id": client, "work_id": work_id(FED, number, 1, "train", client),
    }  # fmt: skip


def submitted(client: str, number: int = 2) -> UpdateSubmitted:
    facts = of_work(client, number) | {"round_number": number}
    return UpdateSubmitted(**facts, lease_epoch=1, artifact=ref(client), n_examples=9)


def accepted(client: str, number: int = 2) -> UpdateAccepted:
    return UpdateAccepted(**of_work(client, number), place=0, artifact=ref(client), n_examples=9)


def failed_attempt(left: int = 2) -> RoundFailed:
    return RoundFailed(
        federation_id=FED, round_number=2, attempt=1, code="quorum-missed", reason="1 of 2",
        attempts_left=left, waits_until=UNTIL,
    )  # fmt: skip


def exchange(told_: Told) -> Exchange:
    stage = standing(told_, SPARE).stage
    assert isinstance(stage, Exchange)
    return stage


def between(told_: Told) -> Between:
    stage = standing(told_, SPARE).stage
    assert isinstance(stage, Between)
    return stage


def verdicts(stage: Exchange) -> dict[tuple[str, int], str]:
    """By client and round: the verdict, or `reported` or nothing before it."""
    return {
        (one.client_id, one.round_number): one.verdict or ("reported" if one.reported_at else "")
        for one in stage.work
    }


def test_what_is_not_known_yet_is_before_the_first_round() -> None:
    assert standing(Told(), SPARE).stage == SPARE


def test_a_replacement_is_waited_for_in_the_place_of_the_one_who_left() -> None:
    replaced = RoundMemberReplaced(
        federation_id=FED, round_number=2, attempt=1, place=1, client_id="b",
        replacement=member("c"), reason="dropped",
    )  # fmt: skip
    stage = exchange(Told(own=told(started("a", "b"), replaced), leases=told(submitted("a"))))
    assert verdicts(stage) == {("a", 2): "reported", ("c", 2): ""}
    assert stage.work[1].asked_at == NOON + timedelta(seconds=1)
    late = exchange(Told(own=told(started("a", "b"), replaced), leases=told(submitted("b"))))
    assert verdicts(late) == {("a", 2): "", ("b", 2): "reported"}
    beyond = replaced.model_copy(update={"place": 7})
    assert set(verdicts(exchange(Told(own=told(started("a"), beyond))))) == {("a", 2)}


def test_a_late_answer_counts_for_the_work_that_was_owed() -> None:
    """One client may have two updates in a round; each belongs to its own work."""
    own = told(started("a", "b", owing=(owed("b", 1), owed("c", 1))))
    leases = told(submitted("b", 1), submitted("c", 1))
    stage = exchange(Told(own=own, leases=leases, exchanges=told(accepted("b", 1))))
    assert verdicts(stage) == {
        ("a", 2): "", ("b", 2): "", ("b", 1): "accepted", ("c", 1): "reported",
    }  # fmt: skip
    assert [one.is_owed for one in stage.work] == [False, False, True, True]


def test_who_left_an_evaluation_is_not_required_any_more() -> None:
    evaluation = RoundEvaluationStarted(
        federation_id=FED, round_number=2, attempt=1, base=ref("new"),
        cohort=(member("a"), member("b")), goal=2, n_required=2, deadline_at=UNTIL, seed=7,
        config={}, n_updates=2,
    )  # fmt: skip
    left = UpdateRejected(
        **of_work("b") | {"exchange": "evaluate"}, place=1, code="client-left",
    )  # fmt: skip
    assert exchange(Told(own=told(evaluation))).n_required == 2
    assert exchange(Told(own=told(evaluation), exchanges=told(left))).n_required == 1


def test_answers_of_another_exchange_are_not_this_ones() -> None:
    other = accepted("a").model_copy(update={"exchange": "evaluate"})
    stage = exchange(Told(own=told(started("a")), exchanges=told(other)))
    assert verdicts(stage) == {("a", 2): ""} and stage.judged_at is None


def test_between_rounds_the_next_place_is_known() -> None:
    completed = RoundCompleted(
        federation_id=FED, round_number=2, attempt=1, checkpoint=ref("new"), n_updates=1,
        waits_until=UNTIL,
    )  # fmt: skip
    stage = between(Told(own=told(started("a", "b"), completed)))
    assert (stage.round_number, stage.attempt, stage.until) == (3, 1, UNTIL)
    stage = between(Told(own=told(started("a"), failed_attempt(left=0))))
    assert (stage.round_number, stage.attempt, stage.is_last) == (2, 2, True)


def test_the_deadline_follows_a_pause_and_a_change_of_policy() -> None:
    paused = FederationPaused(federation_id=FED, reason="lunch", expires_at=NOON)
    own = [started("a"), failed_attempt(), paused]
    now = standing(Told(own=told(*own)), SPARE)
    assert now.pause is not None and now.pause.reason == "lunch"
    later = UNTIL + timedelta(hours=1)
    resumed = FederationResumed(federation_id=FED, waits_until=later)
    now = standing(Told(own=told(*own, resumed)), SPARE)
    assert now.pause is None
    assert isinstance(now.stage, Between) and now.stage.until == later
    policy = RoundPolicy().model_dump(mode="json")
    changed = FederationPolicyChanged(
        federation_id=FED, policy=policy, changed=("quorum",), waits_until=NOON
    )
    assert between(Told(own=told(*own, resumed, changed))).until == NOON
    assert standing(Told(own=told(changed)), SPARE).stage == Starting(since=NOON, until=NOON)
    assert exchange(Told(own=told(started("a"), changed))).deadline_at == UNTIL


def test_an_exchange_that_the_aggregator_gave_up_is_closed() -> None:
    failure = AggregateFailed(
        federation_id=FED, round_number=2, attempt=1, exchange="train", code="quorum-missed",
        reason="0 of 1",
    )  # fmt: skip
    stage = exchange(Told(own=told(started("a")), exchanges=told(failure)))
    assert stage.closed_at == NOON
    assert stage.failure is not None and stage.failure.code == "quorum-missed"


def test_a_base_that_could_not_be_made() -> None:
    failure = AggregateFailed(
        federation_id=FED, round_number=0, attempt=1, exchange="initialize", code="app-failed",
        reason="no such parameter",
    )  # fmt: skip
    stage = standing(Told(exchanges=told(failure)), SPARE).stage
    assert isinstance(stage, Starting) and stage.base_failure is not None


@pytest.mark.parametrize(
    ("status", "epoch", "is_told"),
    [("issued", 1, True), ("issued", 2, False), ("joined", 1, False)],
)
def test_a_decline_is_of_one_lease_and_until_it_is_taken_up(
    status: str, epoch: int, is_told: bool
) -> None:
    declined = ClientDeclined(
        client_id="a", federation_id=FED, lease_id="lease-a", epoch=1, code="disk-full"
    )
    client = Client(client_id="a", status=status)
    found = with_decline(client, epoch, declines(told(declined)))
    assert (found.declined is not None) is is_told


# --- the last error ---------------------------------------------------------

TRACE = "  app.task:7 in train\nFloatingPointError: the loss is nan"


def client_failed(client: str, **more: Any) -> UpdateFailed:
    return UpdateFailed(**(of_work(client) | more), lease_epoch=1, code="app-failed", detail=TRACE)


def refused(client: str, code: str, **more: Any) -> UpdateRejected:
    return UpdateRejected(**(of_work(client) | more), place=0, code=code, detail=f"of {client}")


END = FederationFailed(federation_id=FED, code="round-failed", reason="3 of 3 attempts")
TOO_FEW = FederationFailed(federation_id=FED, code="too-few-clients", reason="1 of 2")
A = {"a": Client(client_id="a", status="joined", label="hospital-a")}


@pytest.mark.parametrize(
    ("events", "code", "where"),
    [
        ([client_failed("a"), refused("a", "app-failed"), failed_attempt(), END], "app-failed",
         "round 2, train"),
        ([refused("a", "not-finite"), refused("b", "late"), failed_attempt()], "not-finite",
         "round 2, train"),
        ([client_failed("a", round_number=1), failed_attempt()], "quorum-missed",
         "round 2, train"),
        ([client_failed("a"), refused("b", "late")], "app-failed", "round 2, train"),
        ([client_failed("a"), failed_attempt(), TOO_FEW], "too-few-clients", "the federation"),
        ([client_failed("a", attempt=2, exchange="evaluate")], "app-failed",
         "round 2, attempt 2, evaluate"),
        ([AggregateFailed(federation_id=FED, round_number=0, attempt=1, exchange="initialize",
                          code="code-hash", reason="differs")], "code-hash",
         "the base checkpoint"),
        ([RoundCompleted(federation_id=FED, round_number=2, attempt=1, checkpoint=ref("x"),
                         n_updates=1, evaluation_error="0 of 1")], "evaluation-failed",
         "round 2, evaluate"),
        ([ClientDeclined(client_id="a", federation_id=FED, lease_id="l", epoch=1,
                         code="disk-full", detail="2 MB left")], "disk-full", "its lease"),
    ],
)  # fmt: skip
def test_the_last_error_is_the_cause_and_not_its_consequence(
    events: list[Event], code: str, where: str
) -> None:
    found = last_error(told(*events)[::-1], A)
    assert found is not None
    assert (found.code, found.where) == (code, where)


def test_a_clients_error_has_its_label_and_its_whole_traceback() -> None:
    found = last_error(told(client_failed("a"), failed_attempt()), A)
    assert found is not None
    assert (found.client_id, found.label) == ("a", "hospital-a")
    assert found.detail == "FloatingPointError: the loss is nan"
    assert found.traceback == TRACE and found.at == NOON


def test_no_error_is_no_error() -> None:
    completed = RoundCompleted(
        federation_id=FED, round_number=2, attempt=1, checkpoint=ref("x"), n_updates=1
    )
    assert last_error(told(completed, refused("a", "late")), A) is None
