"""What always holds of an exchange, whatever is commanded in whatever order."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from flowerbed.aggregator.decider import (
    AcceptUpdate,
    Closed,
    CloseExchange,
    ExchangeCommand,
    ExchangeEvent,
    FailExchange,
    RejectUpdate,
    Result,
    exchange,
)
from flowerbed.aggregator.quorum import Terms
from flowerbed.contracts.aggregate import AggregateCompleted, AggregateFailed
from flowerbed.contracts.update import UpdateAccepted, UpdateRejected
from flowerbed.contracts.values import ArtifactRef
from flowerbed.events.errors import Rejected

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
COHORT = ("a", "b", "c", "d")
REF = ArtifactRef(uri="s3://b/k", sha256="0" * 64, size=1)


@st.composite
def scripts(draw: st.DrawFn) -> tuple[Terms, list[ExchangeCommand]]:
    goal = draw(st.integers(1, len(COHORT)))
    terms = Terms(
        federation_id="fed-1",
        round_number=1,
        attempt=1,
        exchange="train",
        cohort=COHORT,
        goal=goal,
        n_required=draw(st.integers(1, goal)),
        deadline_at=NOON,
    )
    client = st.sampled_from((*COHORT, "stranger"))
    minutes = st.integers(-2, 2).map(lambda n: NOON + timedelta(minutes=n))
    places = st.sets(st.integers(0, 3)).map(lambda chosen: tuple(sorted(chosen)))
    command = st.one_of(
        st.builds(
            AcceptUpdate,
            terms=st.just(terms),
            client_id=client,
            work_id=st.just("w"),
            artifact=st.just(REF),
            n_examples=st.integers(1, 1000),
            metrics=st.just({}),
            train_seconds=st.just(0.0),
            norm=st.none(),
        ),
        st.builds(
            RejectUpdate,
            terms=st.just(terms),
            client_id=client,
            work_id=st.just("w"),
            code=st.just("not-finite"),
            detail=st.just(""),
        ),
        st.builds(
            CloseExchange,
            terms=st.just(terms),
            at=minutes,
            result=st.builds(Result, places=places, checkpoint=st.just(REF)),
        ),
        st.builds(FailExchange, terms=st.just(terms), code=st.just("x"), reason=st.just("y")),
    )
    return terms, draw(st.lists(command, max_size=14))


def run(commands: list[ExchangeCommand]) -> list[ExchangeEvent]:
    history: list[ExchangeEvent] = []
    for command in commands:
        try:
            history += exchange.decide(exchange.replay(history), command)
        except Rejected:
            continue
    return history


@given(scripts())
def test_each_client_is_answered_once_and_the_end_comes_once(
    script: tuple[Terms, list[ExchangeCommand]],
) -> None:
    terms, commands = script
    history = run(commands)
    answered = [e.client_id for e in history if isinstance(e, UpdateAccepted | UpdateRejected)]
    ends = [e for e in history if isinstance(e, AggregateCompleted | AggregateFailed)]
    accepted = [e for e in history if isinstance(e, UpdateAccepted)]
    assert len(answered) == len(set(answered))
    assert set(answered) <= set(COHORT)
    assert len(ends) <= 1
    assert len(accepted) <= terms.goal
    assert all(COHORT[event.place] == event.client_id for event in accepted)


@given(scripts())
def test_an_aggregate_holds_all_accepted_updates_in_cohort_order_and_a_quorum(
    script: tuple[Terms, list[ExchangeCommand]],
) -> None:
    terms, commands = script
    history = run(commands)
    accepted = {e.place for e in history if isinstance(e, UpdateAccepted)}
    for event in history:
        if isinstance(event, AggregateCompleted):
            assert [update.place for update in event.updates] == sorted(accepted)
            assert len(event.updates) >= terms.n_required


@given(scripts(), st.integers(0, 14))
def test_replaying_in_two_parts_gives_the_same_state(
    script: tuple[Terms, list[ExchangeCommand]], cut: int
) -> None:
    history = run(script[1])
    state = exchange.replay(history[:cut])
    for event in history[cut:]:
        state = exchange.evolve(state, event)
    assert state == exchange.replay(history)


@given(scripts())
def test_the_same_script_again_changes_nothing_once_it_is_closed(
    script: tuple[Terms, list[ExchangeCommand]],
) -> None:
    history = run(script[1])
    if isinstance(exchange.replay(history), Closed):
        again = run([*script[1], *script[1]])
        late = again[len(history) :]
        assert all(isinstance(event, UpdateRejected) and event.code == "late" for event in late)
