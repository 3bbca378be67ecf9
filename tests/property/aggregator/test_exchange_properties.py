"""What always holds of an exchange, whatever is commanded in whatever order."""

from collections import Counter
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
    RefuseLate,
    RejectUpdate,
    Result,
    exchange,
)
from flowerbed.aggregator.quorum import Terms, owing
from flowerbed.contracts.aggregate import AggregateCompleted, AggregateFailed
from flowerbed.contracts.ids import work_id
from flowerbed.contracts.round import OwedWork
from flowerbed.contracts.update import UpdateAccepted, UpdateRejected
from flowerbed.contracts.values import ArtifactRef
from flowerbed.events.errors import Rejected

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
COHORT = ("a", "b", "c", "d")
REF = ArtifactRef(uri="s3://b/k", sha256="0" * 64, size=1)
OWED = tuple(
    OwedWork(
        client_id=client_id,
        work_id=work_id("fed-1", number, 1, "train", client_id),
        round_number=number,
        attempt=1,
        base=REF,
    )
    for client_id, number in (("a", 1), ("e", 2))
)


@st.composite
def all_terms(draw: st.DrawFn) -> Terms:
    goal = draw(st.integers(1, len(COHORT)))
    owed = draw(st.sampled_from([(), OWED]))
    return Terms(
        federation_id="fed-1",
        round_number=3,
        attempt=1,
        exchange="train",
        cohort=COHORT,
        replaced=draw(st.sampled_from([(), ((1, "x"), (3, "y"))])),
        owed=owed,
        goal=goal,
        n_required=draw(st.integers(1, goal)),
        deadline_at=NOON,
        counts_late=bool(owed) or draw(st.booleans()),
        folds_in_order=draw(st.sampled_from(["cohort", "arrival"])),
    )


Told = st.tuples(
    st.sampled_from(["accept", "accept", "reject", "refuse", "close", "fail"]),
    st.integers(0, 63),
)


@st.composite
def scripts(draw: st.DrawFn) -> tuple[Terms, list[ExchangeCommand]]:
    terms = draw(all_terms())
    return terms, [command(terms, *told) for told in draw(st.lists(Told, max_size=14))]


def command(terms: Terms, kind: str, n: int) -> ExchangeCommand:
    works = [*terms.places, terms.work_of("stranger")]
    work = works[n % len(works)]
    client_id = work.rsplit(".", 1)[1]
    match kind:
        case "accept":
            return AcceptUpdate(
                terms=terms,
                client_id=client_id,
                work_id=work,
                artifact=REF,
                n_examples=1 + n,
                metrics={},
                train_seconds=0.0,
                norm=None,
            )
        case "reject":
            return RejectUpdate(
                terms=terms, client_id=client_id, work_id=work, code="not-finite", detail=""
            )
        case "refuse":
            return RefuseLate(terms=terms, client_id=client_id, work_id=work)
        case "close":  # every set of the first six places, in their order
            places = tuple(place for place in range(6) if n >> place & 1)
            at = NOON + timedelta(minutes=n % 3 - 1)
            result = None if n % 4 == 0 else Result(places=places, checkpoint=REF)
            return CloseExchange(terms=terms, at=at, result=result)
        case _:
            return FailExchange(terms=terms, code="x", reason="y")


def run(commands: list[ExchangeCommand]) -> list[ExchangeEvent]:
    history: list[ExchangeEvent] = []
    for command in commands:
        try:
            history += exchange.decide(exchange.replay(history), command)
        except Rejected:
            continue
    return history


@given(scripts())
def test_each_work_is_answered_once_at_its_place_and_the_end_comes_once(
    script: tuple[Terms, list[ExchangeCommand]],
) -> None:
    terms, commands = script
    history = run(commands)
    answered = [e for e in history if isinstance(e, UpdateAccepted | UpdateRejected)]
    ends = [e for e in history if isinstance(e, AggregateCompleted | AggregateFailed)]
    accepted = [e for e in history if isinstance(e, UpdateAccepted)]
    assert max(Counter(event.work_id for event in answered).values(), default=0) <= 1
    assert all(terms.places[event.work_id] == event.place for event in answered)
    assert max(Counter(event.place for event in accepted).values(), default=0) <= 1
    assert len(ends) <= 1
    assert len(accepted) <= terms.goal
    for event in accepted:
        owed = terms.owed_at(event.place)
        assert event.staleness == (0 if owed is None else 3 - owed.round_number)


@given(scripts())
def test_an_aggregate_holds_all_accepted_updates_in_order_and_owes_the_rest(
    script: tuple[Terms, list[ExchangeCommand]],
) -> None:
    terms, commands = script
    history = run(commands)
    accepted = [e.place for e in history if isinstance(e, UpdateAccepted)]
    for n, event in enumerate(history):
        if isinstance(event, AggregateCompleted):
            in_order = accepted if terms.folds_in_order == "arrival" else sorted(accepted)
            assert [update.place for update in event.updates] == in_order
            assert len(event.updates) >= terms.n_required
            answers = exchange.replay(history[:n]).answers
            assert event.owing == owing(answers, terms)
            owed_places = {terms.places[work] for work in event.owing}
            assert owed_places.isdisjoint(answers.places)
            assert owed_places | answers.places == set(range(len(terms.wanted)))


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
