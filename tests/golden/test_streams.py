"""Recorded histories are understood for ever: each event decodes, each stream replays.

streams/hospital: a real run of the four hospitals, all services' events (see record.py).
streams/trouble: made by the deciders, for the facts that a good run does not have.
streams/policies: made by the deciders: a client declines, another is replaced, an update is late,
    a person changes the policy.
streams/apps: made by the decider: a bundle is pushed.
streams/whole: made by the deciders: a whole ServerApp, whose process is started again.
"""

import json
from datetime import timedelta

import pytest

from flowerbed.contracts.aggregate import AggregateCompleted
from flowerbed.contracts.artifact import ArtifactRecorded
from flowerbed.contracts.catalogue import EVENTS, owned_events
from flowerbed.contracts.client import ClientJoined
from flowerbed.contracts.federation import FederationCompleted, FederationCreated
from flowerbed.contracts.ids import federation_id, lease_id, work_id
from flowerbed.contracts.policy import RoundPolicy
from flowerbed.contracts.problems import parse_spec
from flowerbed.contracts.round import RoundEvaluationStarted, RoundStarted
from flowerbed.contracts.update import UpdateAccepted, UpdateSubmitted
from flowerbed.events.codec import Codec
from flowerbed.orchestrator.exchanges import Trained, evaluation_exchange, training_exchange
from flowerbed.orchestrator.state import Member
from tests.golden.replay import STREAMS, Stored, by_stream, load, states

RECORDINGS = ("hospital", "trouble", "policies", "apps", "whole")
HOSPITAL = load("hospital")


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_recorded_history_replays_to_the_recorded_states(name: str) -> None:
    """A state may know more today; what it was then, it still is."""
    recorded = json.loads((STREAMS / f"{name}.states.json").read_text())
    today = states(load(name))
    assert today.keys() == recorded.keys()
    assert [name for name, state in recorded.items() if not _holds(today[name], state)] == []


@pytest.mark.parametrize("name", RECORDINGS)
def test_each_stream_is_whole_and_its_owners_alone(name: str) -> None:
    for history in by_stream(load(name)).values():
        assert [one.version for one in history] == list(range(1, len(history) + 1))
        (owner,) = {one.service for one in history}
        assert {type(one.event) for one in history} <= set(owned_events(owner))


@pytest.mark.parametrize("name", RECORDINGS)
def test_what_was_recorded_is_encoded_the_same_today(name: str) -> None:
    """Fields may be added with a default; what was said before is said in the same words."""
    codec = Codec(EVENTS)
    for one in load(name):
        event_type, schema_version, payload = codec.encode(one.event)
        assert (event_type, schema_version) == (one.type, one.schema_version)
        assert _holds(json.loads(payload), one.data), one.stream


def _holds(now: object, then: object) -> bool:
    if isinstance(then, dict):
        return isinstance(now, dict) and all(_holds(now.get(key), then[key]) for key in then)
    if isinstance(then, list):
        return isinstance(now, list) and len(now) == len(then) and all(map(_holds, now, then))
    return now == then


def test_every_event_type_is_in_a_recording() -> None:
    recorded = {one.type for name in RECORDINGS for one in load(name)}
    assert recorded == {event.type for event in EVENTS}


# --- the real run ------------------------------------------------------------------------------


def the(kind: type, told: list[Stored] = HOSPITAL) -> list[Stored]:
    return [one for one in told if isinstance(one.event, kind)]


def created() -> FederationCreated:
    (one,) = the(FederationCreated)
    assert isinstance(one.event, FederationCreated)
    return one.event


def test_the_recorded_ids_are_derived_the_same_way_today() -> None:
    event = created()
    assert event.federation_id == federation_id(
        the(FederationCreated)[0].tenant, event.submission_id
    )
    for one in the(ClientJoined):
        assert isinstance(one.event, ClientJoined)
        assert one.event.lease_id == lease_id(event.federation_id, one.event.client_id)
    for one in the(UpdateSubmitted):
        update = one.event
        assert isinstance(update, UpdateSubmitted)
        assert update.work_id == work_id(
            event.federation_id, update.round_number, update.attempt, update.exchange,
            update.client_id,
        )  # fmt: skip


def test_the_recorded_spec_is_still_accepted_as_it_was() -> None:
    """Keys that came later have their defaults, with which nothing else is meant than before."""
    then = dict(created().spec)
    assert _holds(parse_spec(then).document(), then)
    added = parse_spec(then).spec.round_policy
    assert added == RoundPolicy.model_validate(then["spec"]["round_policy"])
    assert not added.is_buffered and not added.counts_late and added.close_at is None


def test_the_recorded_rounds_would_be_asked_for_the_same_way_today() -> None:
    event = created()
    spec = event.federation_spec
    pool = tuple(
        Member(
            client_id=one.event.client_id,
            lease_id=one.event.lease_id,
            lease_epoch=one.event.epoch,
            dataset_sha256=one.event.dataset.sha256,
        )
        for one in the(ClientJoined)
        if isinstance(one.event, ClientJoined)
    )
    patience = timedelta(seconds=spec.spec.round_policy.deadline_seconds)
    for one in the(RoundStarted):
        told = one.event
        assert isinstance(told, RoundStarted)
        place, at = (told.round_number, told.attempt), told.deadline_at - patience
        assert told == training_exchange(
            event.federation_id, spec, place, told.base, tuple(reversed(pool)), at
        )
    for one in the(RoundEvaluationStarted):
        asked = one.event
        assert isinstance(asked, RoundEvaluationStarted)
        place, at = (asked.round_number, asked.attempt), asked.deadline_at - patience
        trained = Trained(checkpoint=asked.base, n_updates=asked.n_updates, training=asked.training)
        assert asked == evaluation_exchange(
            event.federation_id, spec, place, trained, tuple(reversed(pool)), at
        )


def test_the_final_checkpoint_is_at_the_end_of_an_unbroken_lineage() -> None:
    parents = {
        one.event.artifact.sha256: one.event.parents
        for one in the(ArtifactRecorded)
        if isinstance(one.event, ArtifactRecorded) and one.event.kind != "state"
    }
    (end,) = (o.event for o in the(FederationCompleted) if isinstance(o.event, FederationCompleted))
    sha256, length = end.final.sha256, 0
    while parents[sha256]:
        (sha256,) = parents[sha256]
        length += 1
    assert length == end.n_rounds == len(parents) - 1


def test_every_aggregate_holds_the_accepted_updates_in_cohort_order() -> None:
    for history in by_stream(HOSPITAL).values():
        for one in history:
            if not isinstance(one.event, AggregateCompleted) or not one.event.updates:
                continue
            accepted = sorted(
                (e.event.place, e.event.client_id, e.event.n_examples)
                for e in history
                if isinstance(e.event, UpdateAccepted)
            )
            folded = [(u.place, u.client_id, u.weight) for u in one.event.updates]
            assert folded == accepted


# --- late updates ------------------------------------------------------------------------------


def test_recorded_late_work_is_traced_from_its_order_to_the_aggregate_that_counts_it() -> None:
    told = [one.event for one in load("policies")]
    (owing,) = next(e.owing for e in told if isinstance(e, ArtifactRecorded) and e.owing)
    second = next(e for e in told if isinstance(e, RoundStarted) and e.owed)
    assert [one.work_id for one in second.owed] == [owing]
    late = next(e for e in told if isinstance(e, UpdateAccepted) and e.work_id == owing)
    assert (late.round_number, late.staleness, late.base) == (2, 1, second.owed[0].base)
    done = [e for e in told if isinstance(e, AggregateCompleted)][-1]
    assert (late.client_id, late.place, 1) in [
        (one.client_id, one.place, one.staleness) for one in done.updates
    ]
