"""Why is this run not moving? Always an answer, until it has ended."""

from datetime import UTC, datetime
from typing import Any

import pytest

from flowerbed.gateway.views import Artifact, Membership, Round, UpdateCounts
from flowerbed.gateway.waiting import waiting_for

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
UNTIL = ", until 2026-01-01 12:00:00 UTC"
SPEC = {"spec": {"min_clients": 2, "client_selector": {"tags": ["eu", "gpu"]}}}


def _federation(status: str, **more: Any) -> dict[str, Any]:
    return {
        "status": status, "spec": SPEC, "join_deadline_at": NOON, "pause_expires_at": NOON, **more,
    }  # fmt: skip


def _round(status: str, **more: Any) -> Round:
    nothing = dict.fromkeys(Round.model_fields)
    texts = {"code": "", "reason": "", "evaluation_error": "", "training": {}, "evaluation": {}}
    counts = {"train_updates": UpdateCounts(), "evaluate_updates": UpdateCounts()}
    known = {"round_number": 3, "attempt": 1, "n_cohort": 6, "n_required": 6, "status": status}
    return Round(**{**nothing, **texts, **counts, **known, "deadline_at": NOON, **more})


def _member(status: str) -> Membership:
    facts = dict.fromkeys(Membership.model_fields) | {"client_id": "c", "tags": [], "reason": ""}
    return Membership.model_validate({**facts, "status": status, "epoch": 1})


BASE = Artifact.model_validate(
    {
        "federation_id": "fed", "tenant": "acme", "sha256": "a", "uri": "s3://b/a", "size": 1,
        "kind": "base", "round_number": 0, "attempt": 1, "exchange": "initialize", "parents": [],
        "metrics": {}, "channels": [], "revoked_at": None, "revoked_reason": "",
        "recorded_at": NOON,
    }
)  # fmt: skip


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "rejected"])
def test_what_has_ended_waits_for_nothing(status: str) -> None:
    assert waiting_for(_federation(status), [], [], [], []) is None


def test_a_submission_waits_for_the_orchestrator() -> None:
    assert "orchestrator" in str(waiting_for(_federation("submitted"), [], [], [], []))


def test_a_pause_waits_for_a_person_until_it_expires() -> None:
    paused = waiting_for(_federation("paused"), [], [], [], [])
    assert paused == f"a person to resume it{UNTIL}"


def test_a_start_waits_for_clients_and_the_base() -> None:
    joined = [_member("joined"), _member("issued")]
    created = _federation("created")
    clients = f"clients tagged eu, gpu: 1 of 2 have joined{UNTIL}"
    assert waiting_for(created, [], joined, [], []) == f"{clients}; the base checkpoint"
    assert waiting_for(created, [], joined, [BASE], []) == clients
    both = [_member("joined")] * 2
    assert waiting_for(created, [], both, [BASE], []) == "the first round to start"
    assert waiting_for(_federation("running"), [], both, [BASE], []) == "the first round to start"


def test_an_open_exchange_waits_for_the_clients_that_owe_an_answer() -> None:
    running = _federation("running")
    training = _round("training", train_updates=UpdateCounts(asked=5, accepted=1))
    silent = [f"c{number}" for number in range(5)]
    assert waiting_for(running, [training], [], [], silent) == (
        f"round 3, train: 5 of 6 clients (c0, c1, c2, c3, …){UNTIL}"
    )
    evaluating = _round("evaluating", evaluate_updates=UpdateCounts(accepted=2, failed=1))
    assert waiting_for(running, [evaluating], [], [], []) == (
        "round 3, evaluate: the aggregate of 3 answers"
    )


def test_between_rounds_it_waits_for_the_orchestrator_until_its_deadline() -> None:
    running = _federation("running")
    done = waiting_for(running, [_round("completed")], [], [], [])
    assert done == f"the next round to start{UNTIL}"
    failed = waiting_for(running, [_round("failed", reason="below quorum")], [], [], [])
    assert failed == f"another attempt at round 3 (below quorum){UNTIL}"
