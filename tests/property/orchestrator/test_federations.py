"""Whatever is said to a federation, in whatever order, it stays a federation."""

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from flowerbed.contracts.federation import (
    FederationCancelled,
    FederationCompleted,
    FederationFailed,
)
from flowerbed.contracts.round import RoundCompleted, RoundStarted
from flowerbed.events.errors import NotFound, Rejected
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
from flowerbed.orchestrator.state import Ended, Evaluating, Training, Waiting
from tests.support.federations import BASE, CODE, FED, NOON, pool, ref, spec_of

POOLS = st.sampled_from([pool(), pool("a"), pool("a", "b"), pool("a", "b", "c")])
TIMES = st.integers(0, 60 * 24 * 31).map(lambda minutes: NOON + timedelta(minutes=minutes))
ROUNDS = st.integers(1, 3)
ATTEMPTS = st.integers(1, 3)
COMMANDS: st.SearchStrategy[Command] = st.one_of(
    st.builds(OpenRound, base=st.sampled_from([None, BASE]), pool=POOLS, at=TIMES),
    st.builds(
        RecordCheckpoint,
        round_number=ROUNDS,
        attempt=ATTEMPTS,
        checkpoint=ROUNDS.map(lambda n: ref(f"r{n}")),
        n_updates=st.just(2),
        training=st.just({}),
        pool=POOLS,
        at=TIMES,
    ),
    st.builds(
        CompleteEvaluation,
        round_number=ROUNDS,
        attempt=ATTEMPTS,
        metrics=st.just({}),
        pool=POOLS,
        at=TIMES,
    ),
    st.builds(
        FailExchange,
        round_number=st.integers(0, 3),
        attempt=ATTEMPTS,
        exchange=st.sampled_from(["initialize", "train", "evaluate"]),
        code=st.just("quorum-missed"),
        reason=st.just("why"),
        pool=POOLS,
        at=TIMES,
    ),
    st.builds(CheckDeadline, pool=POOLS, at=TIMES),
    st.builds(PauseFederation, reason=st.just(""), at=TIMES),
    st.builds(ResumeFederation, base=st.sampled_from([None, BASE]), pool=POOLS, at=TIMES),
    st.builds(CancelFederation, reason=st.just("")),
)
SCRIPTS = st.lists(COMMANDS, max_size=40)
SUBMIT = SubmitFederation(
    federation_id=FED, submission_id="s", spec=spec_of(), problems=(), code_hash=CODE, at=NOON
)


def run(script: list[Command]) -> list[OrchestratorEvent]:
    events: list[OrchestratorEvent] = []
    for command in [SUBMIT, *script]:
        try:
            events += decide(federation.replay(events), command)
        except (Rejected, NotFound):
            continue
    return events


@settings(max_examples=300, deadline=None)
@given(SCRIPTS)
def test_rounds_complete_in_order_and_each_once(script: list[Command]) -> None:
    done = [event.round_number for event in run(script) if isinstance(event, RoundCompleted)]
    assert done == list(range(1, len(done) + 1))


@settings(max_examples=300, deadline=None)
@given(SCRIPTS)
def test_a_federation_ends_once_and_nothing_follows(script: list[Command]) -> None:
    ends = (FederationCompleted, FederationFailed, FederationCancelled)
    events = run(script)
    places = [place for place, event in enumerate(events) if isinstance(event, ends)]
    assert places in ([], [len(events) - 1])


@settings(max_examples=300, deadline=None)
@given(SCRIPTS)
def test_every_round_starts_from_the_checkpoint_before_it(script: list[Command]) -> None:
    base = BASE
    for event in run(script):
        if isinstance(event, RoundStarted):
            assert event.base == base
        elif isinstance(event, RoundCompleted):
            base = event.checkpoint


@settings(max_examples=300, deadline=None)
@given(SCRIPTS)
def test_what_is_not_over_has_a_deadline(script: list[Command]) -> None:
    state = federation.replay(run(script))
    match state:
        case Waiting():
            assert state.until is not None
        case Training() | Evaluating():
            assert state.deadline_at is not None
        case _:
            assert isinstance(state, Ended)


@settings(max_examples=200, deadline=None)
@given(SCRIPTS, COMMANDS)
def test_a_command_given_twice_at_once_acts_once(script: list[Command], command: Command) -> None:
    before = run(script)
    after = run([*script, command])
    again = run([*script, command, command])
    opened = [event for event in again[len(after) :] if isinstance(event, RoundCompleted)]
    assert opened == []
    assert after[: len(before)] == before


@settings(max_examples=100, deadline=None)
@given(SCRIPTS, st.integers(0, 60))
def test_replaying_in_two_parts_gives_the_same_state(script: list[Command], cut: int) -> None:
    events = run(script)
    state = federation.replay(events[:cut])
    for event in events[cut:]:
        state = federation.evolve(state, event)
    assert state == federation.replay(events)
