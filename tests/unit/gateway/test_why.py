"""Why is this run not moving? One answer for every state, with its code, deadline and end."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flowerbed.contracts.policy import RoundPolicy
from flowerbed.contracts.spec import FederationSpec, Spec
from flowerbed.gateway.why.engine import waiting_for, why
from flowerbed.gateway.why.facts import (
    Between,
    Client,
    Ended,
    Exchange,
    Facts,
    Failure,
    Letter,
    Pause,
    Stage,
    Starting,
    Submitted,
    Work,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SOON = NOON + timedelta(seconds=1)
UNTIL = NOON + timedelta(seconds=600)
FED = "fed-0123456789abcdef"


def seconds(n: float) -> timedelta:
    return timedelta(seconds=n)


def a_spec(policy: RoundPolicy | None = None, **more: Any) -> Spec:
    spec = {
        "app": "builtin:hospital", "model_ref": {"uri": "builtin:hospital"}, "num_rounds": 5,
        "min_clients": 2, "client_selector": {"tags": ["eu", "gpu"]}, **more,
    }  # fmt: skip
    document = {"apiVersion": "flowerbed/v1", "metadata": {"name": "demo"}, "spec": spec}
    parsed = FederationSpec.model_validate(document).spec
    return parsed if policy is None else parsed.model_copy(update={"round_policy": policy})


def joined(*names: str) -> tuple[Client, ...]:
    return tuple(
        Client(client_id=name, status="joined", since=NOON, label=f"hospital-{name}")
        for name in names
    )


def facts(stage: Stage, **more: Any) -> Facts:
    known = {
        "federation_id": FED,
        "status": "running",
        "spec": a_spec(),
        "clients": joined("a", "b"),
    }
    return Facts(**{**known, "stage": stage, **more})


def work(client: str, **more: Any) -> Work:
    return Work(**{"client_id": client, "round_number": 2, "asked_at": NOON, **more})


def reported(client: str) -> Work:
    return work(client, reported_at=NOON)


def accepted(client: str, **more: Any) -> Work:
    return work(client, reported_at=NOON, verdict="accepted", **more)


def rejected(client: str) -> Work:
    return work(client, reported_at=NOON, verdict="rejected")


def training(*pieces: Work, **more: Any) -> Exchange:
    known: dict[str, Any] = {
        "exchange": "train", "federation_id": FED, "round_number": 2, "attempt": 1,
        "started_at": NOON, "deadline_at": UNTIL, "goal": len(pieces), "n_required": len(pieces),
        "judged_at": NOON if any(piece.verdict for piece in pieces) else None,
    }  # fmt: skip
    return Exchange(**{**known, "work": pieces, **more})


def evaluating(*pieces: Work, **more: Any) -> Exchange:
    return training(*pieces, **{"exchange": "evaluate", **more})


FAILURE = Failure(code="quorum-missed", reason="1 of 2 updates", at=NOON)
STARTING = Starting(since=NOON, until=UNTIL)
BASED = replace(STARTING, base_made_at=NOON, base_recorded_at=NOON)
BETWEEN = Between(since=NOON, until=UNTIL, round_number=3, attempt=1)
AGAIN = replace(BETWEEN, round_number=2, attempt=2, failure=FAILURE)
CLOSED = training(accepted("a"), accepted("b"), closed_at=NOON)

# stage, clients joined, code, who is waited for, until (seconds past noon), a part of `then`
STATES: list[tuple[Stage, tuple[str, ...], str, set[str], float | None, str]] = [
    (Submitted(since=NOON), (), "not-taken-up", {"orchestrator"}, None, "created, or rejected"),
    (STARTING, (), "clients-to-join", {"site-operator", "aggregator"}, 600, "too-few-clients"),
    (BASED, ("a",), "clients-to-join", {"site-operator"}, 600, "too-few-clients"),
    (STARTING, ("a", "b"), "base-to-make", {"aggregator"}, 600, "too-few-clients"),
    (replace(STARTING, base_made_at=NOON), ("a", "b"), "base-to-record", {"artifact"}, 600,
     "too-few-clients"),
    (BASED, ("a", "b"), "start-due", {"orchestrator"}, 600, "too-few-clients"),
    (replace(STARTING, base_failure=FAILURE), ("a", "b"), "end-due", {"orchestrator"}, None,
     "fails with quorum-missed"),
    (replace(STARTING, until=NOON), ("a",), "end-due", {"orchestrator"}, None, "too-few-clients"),
    (training(work("a"), work("b")), ("a", "b"), "clients-to-train", {"a", "b"}, 600,
     "unless 2 updates are accepted (0 so far), the attempt fails with quorum-missed and"
     " attempt 2 of 3 starts with the same clients"),
    (training(accepted("a"), work("b"), n_required=1), ("a", "b"), "clients-to-train", {"b"}, 600,
     "the round closes with 1 accepted update"),
    (training(work("a"), work("b"), attempt=3), ("a", "b"), "clients-to-train", {"a", "b"}, 600,
     "the federation fails with round-failed: attempt 3 of 3 was the last"),
    (training(accepted("a"), reported("b")), ("a", "b"), "updates-to-screen", {"aggregator"}, 660,
     "the aggregator takes what it has"),
    (training(accepted("a"), accepted("b")), ("a", "b"), "fold-due", {"aggregator"}, 720,
     "the attempt fails with aggregator-silent, and attempt 2 of 3"),
    (training(accepted("a"), work("b"), goal=1, n_required=1), ("a", "b"), "fold-due",
     {"aggregator"}, 720, "aggregator-silent"),
    (training(rejected("a"), work("b")), ("a", "b"), "fold-due", {"aggregator"}, 720,
     "aggregator-silent"),
    (CLOSED, ("a", "b"), "checkpoint-to-record", {"artifact"}, 720, "aggregator-silent"),
    (replace(CLOSED, recorded_at=NOON), ("a", "b"), "evaluation-start-due", {"orchestrator"}, 720,
     "aggregator-silent"),
    (replace(CLOSED, failure=FAILURE), ("a", "b"), "attempt-end-due", {"orchestrator"}, 720,
     "attempt 2 of 3 starts"),
    (evaluating(work("a"), accepted("b")), ("a", "b"), "clients-to-evaluate", {"a"}, 600,
     "the round completes without its evaluation, unless 2 evaluations are accepted (1 so far)"),
    (evaluating(work("a"), accepted("b"), n_required=1), ("a", "b"), "clients-to-evaluate", {"a"},
     600, "the round completes with 1 accepted evaluation"),
    (evaluating(reported("a"), accepted("b")), ("a", "b"), "evaluations-to-screen",
     {"aggregator"}, 660, "the aggregator takes what it has"),
    (evaluating(accepted("a"), accepted("b")), ("a", "b"), "evaluation-close-due", {"aggregator"},
     720, "completes the round without its evaluation"),
    (evaluating(accepted("a"), closed_at=NOON), ("a", "b"), "round-end-due", {"orchestrator"}, 720,
     "the round completes"),
    (BETWEEN, ("a",), "clients-for-next-round", {"site-operator"}, 600, "too-few-clients"),
    (AGAIN, ("a",), "clients-for-next-attempt", {"site-operator"}, 600, "too-few-clients"),
    (BETWEEN, ("a", "b"), "next-round-due", {"orchestrator"}, 600, "too-few-clients"),
    (AGAIN, ("a", "b"), "next-attempt-due", {"orchestrator"}, 600, "too-few-clients"),
    (replace(BETWEEN, until=NOON), ("a",), "end-due", {"orchestrator"}, None, "too-few-clients"),
    (replace(BETWEEN, round_number=6), ("a", "b"), "end-due", {"orchestrator"}, None, "completes"),
    (replace(AGAIN, is_last=True), ("a", "b"), "end-due", {"orchestrator"}, None,
     "round-failed: 1 of 2 updates"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "clients", "code", "on", "until", "then"),
    STATES,
    ids=[f"{place}-{state[2]}" for place, state in enumerate(STATES)],
)
def test_every_state_names_what_is_waited_for(
    stage: Stage, clients: tuple[str, ...], code: str, on: set[str], until: float | None, then: str
) -> None:
    found = why(facts(stage, clients=joined(*clients)), SOON)
    assert found.waits.code == code
    assert {one.id for one in found.on} == on
    assert found.until == (None if until is None else NOON + seconds(until))
    assert then in found.then
    assert found.since is not None and found.since <= SOON
    assert not found.is_overdue
    line = waiting_for(facts(stage, clients=joined(*clients)), SOON)
    assert line is not None and line.startswith(found.waits.what)
    assert ("until" in line) == (until is not None)


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "rejected"])
def test_what_has_ended_waits_for_nobody_and_says_how(status: Any) -> None:
    over = facts(Ended(at=NOON, code="too-few-clients", reason="1 of 2"), status=status)
    found = why(over, SOON)
    assert (found.waits.code, found.on, found.since) == (status, [], NOON)
    assert found.waits.what.startswith("nothing any more: ")
    assert ("too-few-clients" in found.waits.what) == (status == "failed")
    assert waiting_for(over, SOON) is None


def test_a_deadline_that_has_passed_is_the_aggregators_then_the_orchestrators() -> None:
    stage = training(accepted("a"), work("b"), n_required=1)
    cases = [
        (600, "aggregator", 660, "it takes what it has: the round closes with 1 accepted update"),
        (660, "aggregator", 720, "the attempt fails with aggregator-silent, and attempt 2 of 3"),
        (720, "orchestrator", None, "the attempt fails with aggregator-silent"),
    ]
    for at, service, until, then in cases:
        found = why(facts(stage), NOON + seconds(at))
        assert found.waits.code == "deadline-passed"
        assert [one.id for one in found.on] == [service]
        assert found.until == (None if until is None else NOON + seconds(until))
        assert then in found.then


def test_a_client_that_is_gone_is_said_to_be_and_who_takes_its_place() -> None:
    gone = Client(client_id="b", status="dropped", since=NOON, label="hospital-b", reason="silent")
    clients = (*joined("a"), gone)
    both = why(facts(training(work("a"), work("b")), clients=clients), SOON)
    assert both.waits.code == "clients-to-train"
    alone = why(facts(training(accepted("a"), work("b")), clients=clients), SOON)
    assert alone.waits.code == "client-dropped"
    assert alone.waits.what == "round 2, train: 1 of 2 clients (b), gone"
    assert alone.on[0].label == "hospital-b"
    assert alone.on[0].doing.startswith("dropped 1 s ago (silent); a client that joins by 2026")
    late = why(facts(training(accepted("a"), work("b")), clients=clients), NOON + seconds(500))
    assert "too late for another in its place" in late.on[0].doing
    never = a_spec(RoundPolicy(replace_dropped=False))
    found = why(facts(training(work("b")), clients=clients, spec=never), SOON)
    assert "nobody takes its place" in found.on[0].doing
    evaluated = why(facts(evaluating(work("b")), clients=clients), SOON)
    assert evaluated.waits.code == "clients-to-evaluate"
    assert "the evaluation goes on without it" in evaluated.on[0].doing


def test_a_silent_client_has_a_lease_that_lives() -> None:
    found = why(facts(training(work("a"))), NOON + seconds(42))
    assert found.on[0].doing == (
        "was ordered training 42 s ago and has not answered;"
        " its lease is alive, so it was heard in the last 120 s"
    )
    assert (found.on[0].kind, found.on[0].label, found.on[0].since) == (
        "client",
        "hospital-a",
        NOON,
    )


def test_k_of_n_says_how_many_are_wanted() -> None:
    stage = training(accepted("a"), work("b"), work("c"), goal=2, n_required=1)
    found = why(facts(stage), SOON)
    assert found.waits.what == (
        "round 2, train: 1 of 2 updates accepted, 2 clients (b, c) may still send one"
    )


BUFFERED = a_spec(RoundPolicy(mode="buffered", buffer_size=2))


def test_a_buffered_round_counts_owed_work() -> None:
    owed = work("b", round_number=1, is_owed=True)
    stage = training(work("a"), owed, goal=2, n_required=2)
    found = why(facts(stage, spec=BUFFERED), SOON)
    assert found.waits.code == "updates-to-fill-buffer"
    assert [one.doing.split(",")[0] for one in found.on] == [
        "was ordered training 1 s ago and has not answered; its lease is alive",
        "still works for round 1",
    ]
    ripe = training(accepted("a"), accepted("b", is_owed=True), work("c"), goal=2, n_required=2)
    assert why(facts(ripe, spec=BUFFERED), SOON).waits.code == "fold-due"


def test_a_buffer_needs_as_many_clients_as_updates() -> None:
    bigger = a_spec(RoundPolicy(mode="buffered", buffer_size=3))
    found = why(facts(BETWEEN, spec=bigger), SOON)
    assert found.waits.code == "clients-for-next-round" and "2 of 3 have joined" in found.waits.what


def test_a_changed_policy_leaves_the_open_exchanges_time_outs_alone() -> None:
    longer = a_spec(RoundPolicy(deadline_seconds=6000.0, max_attempts=1))
    found = why(facts(CLOSED, spec=longer), SOON)
    assert found.until == NOON + seconds(720) and "attempt 1 of 1 was the last" in found.then


def test_absent_clients_are_named_with_their_reasons() -> None:
    declined = Failure(code="dataset-gone", reason="no folder", at=NOON)
    clients = (
        Client(client_id="e", status="enrolled", since=NOON, tags=("eu", "gpu")),
        Client(client_id="d", status="dropped", since=NOON, reason="silent"),
        Client(client_id="o", status="issued", since=NOON),
        Client(client_id="r", status="released", since=NOON, reason="as asked"),
        Client(client_id="x", status="issued", since=NOON, declined=declined),
    )
    found = why(facts(BASED, clients=clients), SOON)
    assert [(one.id, one.doing) for one in found.on] == [
        ("o", "was offered a lease 1 s ago and has not taken it up"),
        ("x", "declined the lease 1 s ago with dataset-gone: no folder"),
        ("d", "dropped 1 s ago (silent)"),
        ("r", "left 1 s ago (as asked)"),
        ("e", "is enrolled, and its runner has not asked for work"),
    ]
    assert found.on[-1].label == "eu, gpu"
    assert "flowerbed client invite --tags eu,gpu" in found.hints


@pytest.mark.parametrize(
    ("app", "uri", "hint"),
    [
        (f"fab:{'a' * 64}", "app:task:Net", f"fab:{'a' * 64}"),
        ("builtin:hospital", "builtin:hospital", "--builtin"),
    ],
)
def test_a_site_whose_policy_forbids_the_app_is_told_how_to_allow_it(
    app: str, uri: str, hint: str
) -> None:
    declined = Failure(code="policy-app", reason="it is not among apps", at=NOON)
    client = Client(client_id="x", status="issued", since=NOON, declined=declined)
    spec = a_spec(app=app, model_ref={"uri": uri})
    found = why(facts(BASED, clients=(client,), spec=spec), SOON)
    assert found.on[0].doing == "declined the lease 1 s ago with policy-app: it is not among apps"
    assert found.hints[0] == f"flowerbed client policy allow {hint}"
    assert not any("policy" in one for one in why(facts(BASED), SOON).hints)


def test_a_pause_is_a_persons_and_an_open_exchange_goes_on() -> None:
    pause = Pause(since=NOON, until=NOON + timedelta(days=30), reason="lunch")
    for stage in (STARTING, BETWEEN):
        found = why(facts(stage, status="paused", pause=pause), SOON)
        assert (found.waits.code, found.until) == ("paused", pause.until)
        assert [(one.kind, one.doing) for one in found.on] == [("person", "paused it: lunch")]
        assert found.then == "the federation fails with paused-too-long"
        assert found.hints == [f"flowerbed federation resume {FED}"]
    open_ = why(facts(training(work("a")), status="paused", pause=pause), SOON)
    assert open_.waits.code == "paused-in-round"
    assert [one.id for one in open_.on] == ["operator", "a"]
    assert "the open exchange goes on (round 2, train: 1 of 1 clients (a))" in open_.waits.what


def a_letter(service: str, **more: Any) -> Letter:
    return Letter(
        service=service, consumer="orchestrator", event="fl.round.started (federation-x@3)",
        error="ValueError: no\nmore", parked_at=NOON, **more,
    )  # fmt: skip


def test_dead_letters_stand_above_everything_but_the_end() -> None:
    pause = Pause(since=NOON, until=UNTIL, reason="")
    letters = (a_letter("lease", n_behind=2), a_letter("gateway"))
    found = why(facts(training(work("a")), pause=pause, letters=letters), SOON)
    assert (found.waits.code, found.is_overdue, found.until) == ("parked", True, UNTIL)
    assert [(one.kind, one.id, one.label) for one in found.on] == [
        ("service", "lease", "orchestrator")
    ]
    assert "and 2 events behind it: ValueError: no" in found.on[0].doing
    assert found.last_error is not None and found.last_error.traceback == "ValueError: no\nmore"
    over = facts(Ended(at=NOON, code="", reason=""), status="completed", letters=letters)
    assert why(over, SOON).waits.code == "completed"


def test_a_dead_letter_of_the_gateway_stops_its_answers_and_not_the_run() -> None:
    found = why(facts(training(work("a")), letters=(a_letter("gateway"),)), SOON)
    assert found.waits.code == "clients-to-train"
    replay = f"flowerbed dead-letters replay --service gateway --federation {FED}"
    assert replay in found.hints


def test_a_service_that_takes_long_or_does_not_answer_is_overdue() -> None:
    slow = why(facts(CLOSED), NOON + seconds(20))
    assert slow.is_overdue and slow.waits.code == "checkpoint-to-record"
    assert slow.on[0].doing == (
        "has not recorded the checkpoint for 20 s; it usually takes less than 15 s"
    )
    assert slow.hints == ["flowerbed status", "flowerbed logs artifact"]
    away = why(facts(CLOSED, away=frozenset({"artifact"})), SOON)
    assert away.is_overdue
    assert away.on[0].doing == "has not recorded the checkpoint for 1 s; it does not answer"
    assert not why(facts(CLOSED, away=frozenset({"lease"})), SOON).is_overdue


def test_reports_that_nobody_judges_are_the_aggregators_while_others_train() -> None:
    stage = training(reported("a"), work("b"))
    calm, late = (why(facts(stage), NOON + seconds(n)) for n in (1, 40))
    assert [one.id for one in calm.on] == ["b"] and not calm.is_overdue
    assert [one.id for one in late.on] == ["b", "aggregator"] and late.is_overdue
