"""Whatever is said to a lease, in whatever order: one holder, epochs that rise, answers once."""

from hypothesis import given, settings
from hypothesis import strategies as st

from flowerbed.contracts.client import ClientJoined, ClientLeaseIssued
from flowerbed.contracts.update import UpdateFailed, UpdateSubmitted
from flowerbed.contracts.values import DatasetRef
from flowerbed.events.errors import Rejected
from flowerbed.lease.leases import (
    ClaimLease,
    DeclineLease,
    DropClient,
    FailUpdate,
    IssueLease,
    LeaseCommand,
    LeaseEvent,
    MissWork,
    ReleaseLease,
    SubmitUpdate,
    decide,
    lease,
)

EPOCHS = st.integers(1, 4)
WORK = st.sampled_from(["w1", "w2", "w3"])
DATASETS = st.sampled_from([DatasetRef(label=n, sha256=n * 64) for n in "ab"])


def _submitted(epoch: int, work: str) -> UpdateSubmitted:
    return UpdateSubmitted(
        federation_id="f", round_number=1, attempt=1, exchange="evaluate", client_id="c",
        work_id=work, lease_epoch=epoch, artifact=None, n_examples=1,
    )  # fmt: skip


def _failed(epoch: int, work: str) -> UpdateFailed:
    return UpdateFailed(
        federation_id="f", round_number=1, attempt=1, exchange="train", client_id="c",
        work_id=work, lease_epoch=epoch, code="app-failed",
    )  # fmt: skip


COMMANDS: st.SearchStrategy[LeaseCommand] = st.one_of(
    st.just(IssueLease(federation_id="f", client_id="c", lease_id="l", ttl_seconds=60)),
    st.builds(ClaimLease, epoch=EPOCHS, dataset=DATASETS),
    st.builds(DeclineLease, epoch=EPOCHS, code=st.sampled_from(["a", "b"]), detail=st.just("")),
    st.builds(SubmitUpdate, update=st.builds(_submitted, EPOCHS, WORK)),
    st.builds(FailUpdate, failure=st.builds(_failed, EPOCHS, WORK)),
    st.builds(MissWork, failure=st.builds(_failed, EPOCHS, WORK)),
    st.builds(DropClient, epoch=st.none() | EPOCHS, reason=st.just("")),
    st.builds(ReleaseLease, epoch=st.none() | EPOCHS, reason=st.just("")),
)
SCRIPTS = st.lists(COMMANDS, max_size=40)


def run(script: list[LeaseCommand]) -> list[LeaseEvent]:
    events: list[LeaseEvent] = []
    for command in script:
        try:
            events += decide(lease.replay(events), command)
        except Rejected:
            continue
    return events


@settings(max_examples=300, deadline=None)
@given(SCRIPTS)
def test_epochs_rise_by_one_with_every_issue(script: list[LeaseCommand]) -> None:
    epochs = [event.epoch for event in run(script) if isinstance(event, ClientLeaseIssued)]
    assert epochs == list(range(1, len(epochs) + 1))


@settings(max_examples=300, deadline=None)
@given(SCRIPTS)
def test_each_epoch_is_claimed_at_most_once(script: list[LeaseCommand]) -> None:
    claimed = [event.epoch for event in run(script) if isinstance(event, ClientJoined)]
    assert len(claimed) == len(set(claimed))


@settings(max_examples=300, deadline=None)
@given(SCRIPTS)
def test_each_work_is_answered_at_most_once(script: list[LeaseCommand]) -> None:
    answers = [e.work_id for e in run(script) if isinstance(e, UpdateSubmitted | UpdateFailed)]
    assert len(answers) == len(set(answers))


@settings(max_examples=300, deadline=None)
@given(SCRIPTS, COMMANDS)
def test_a_command_given_twice_acts_once(script: list[LeaseCommand], command: LeaseCommand) -> None:
    once, twice = run([*script, command]), run([*script, command, command])
    assert once == twice


@settings(max_examples=100, deadline=None)
@given(SCRIPTS, st.integers(0, 40))
def test_replaying_in_two_parts_gives_the_same_state(script: list[LeaseCommand], cut: int) -> None:
    events = run(script)
    state = lease.replay(events[:cut])
    for event in events[cut:]:
        state = lease.evolve(state, event)
    assert state == lease.replay(events)
