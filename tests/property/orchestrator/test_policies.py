"""Under any policy, whatever is said and whoever comes and goes:

- nobody has two places in a cohort, and nobody is asked while it owes;
- each exchange can be closed: 1 <= n_required <= goal <= all updates that may come;
- what is not over has a deadline, at which something happens;
- a person may pause, resume and cancel at any moment, and give another policy.
"""

from datetime import timedelta
from functools import reduce
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowerbed.contracts.federation import FederationCreated, FederationPolicyChanged
from flowerbed.contracts.ids import work_id
from flowerbed.contracts.policy import RoundPolicy
from flowerbed.contracts.round import (
    ExchangeStarted,
    RoundEvaluationStarted,
    RoundMemberReplaced,
    RoundStarted,
)
from flowerbed.events.errors import Rejected
from flowerbed.orchestrator.commands import (
    CancelFederation,
    ChangePolicy,
    CheckDeadline,
    Command,
    CompleteEvaluation,
    FailExchange,
    OpenRound,
    PauseFederation,
    RecordCheckpoint,
    ReplaceMembers,
    ResumeFederation,
    SubmitFederation,
)
from flowerbed.orchestrator.decider import decide, federation
from flowerbed.orchestrator.evolve import OrchestratorEvent
from flowerbed.orchestrator.projections.deadlines import due_after
from flowerbed.orchestrator.state import (
    Ended,
    Evaluating,
    Nothing,
    Pool,
    State,
    Training,
    Waiting,
    patience,
)
from tests.support.federations import BASE, CODE, FED, NOON, member, ref, spec_of

CLIENTS = "abcdef"
POLICIES: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.fixed_dictionaries(
        {"quorum": st.sampled_from([0.1, 0.5, 1.0]), "max_attempts": st.integers(1, 3)},
        optional={
            "close_at": st.integers(1, 6),
            "over_select": st.sampled_from([1.0, 1.5, 3.0]),
            "late_updates": st.sampled_from(["refuse", "next_round"]),
            "max_staleness": st.integers(1, 3),
            "replace_dropped": st.booleans(),
            "deadline_seconds": st.sampled_from([5.0, 60.0, 7200.0]),
        },
    ),
    st.fixed_dictionaries(
        {"mode": st.just("buffered"), "buffer_size": st.integers(1, 5)},
        optional={
            "quorum": st.sampled_from([0.5, 1.0]),
            "max_staleness": st.integers(1, 3),
            "budget_seconds": st.sampled_from([900.0, 40_000.0]),
        },
    ),
)


class Walk:
    """A federation that is told one thing after another, as its neighbours would tell it."""

    def __init__(self, data: st.DataObject) -> None:
        self.data, self.at = data, NOON
        self.pool: Pool = ()
        self.events: list[OrchestratorEvent] = []
        self.state: State = Nothing()
        written = {
            "round_policy": data.draw(POLICIES),
            "client_fraction": data.draw(st.sampled_from([0.2, 0.5, 1.0])),
            "min_clients": data.draw(st.integers(1, 3)),
            "num_rounds": data.draw(st.integers(1, 4)),
        }
        self.tell(
            SubmitFederation(
                federation_id=FED, submission_id="s", spec=spec_of(**written), problems=(),
                code_hash=CODE, at=NOON,
            )
        )  # fmt: skip

    def tell(self, command: Command) -> list[OrchestratorEvent]:
        told = decide(self.state, command)
        self.events += told
        self.state = reduce(federation.evolve, told, self.state)
        return told

    def step(self) -> None:
        self.at += timedelta(seconds=self.data.draw(st.sampled_from([0, 1, 50, 4000])))
        self._come_and_go()
        state = self.state
        chosen = self.data.draw(st.integers(0, 9))
        match state, chosen:
            case _, 0:
                self.tell(CheckDeadline(pool=self.pool, at=self.at))
            case Waiting() | Training() | Evaluating(), 1:
                self._steer()
            case Training(), 2 | 3:
                place = (state.round_number, state.attempt)
                self.tell(self._failed(*place, "train"))
            case Training(), _:
                self.tell(self._trained(state))
            case Evaluating(), 2:
                self.tell(self._failed(state.round_number, state.attempt, "evaluate"))
            case Evaluating(), _:
                self.tell(
                    CompleteEvaluation(
                        round_number=state.round_number, attempt=state.attempt, metrics={},
                        pool=self.pool, at=self.at,
                    )
                )  # fmt: skip
            case _:
                self.tell(OpenRound(base=BASE, pool=self.pool, at=self.at))

    def _come_and_go(self) -> None:
        """As the orchestrator hears of a client: the pool is changed, then both commands come."""
        name = self.data.draw(st.sampled_from([*CLIENTS, *CLIENTS[:2], ""]))
        if not name:
            return
        one = member(name)
        there = one in self.pool
        if there and self.data.draw(st.integers(0, 2)):
            return
        others = tuple(other for other in self.pool if other != one)
        self.pool = others if there else (*self.pool, one)
        if not there:
            self.tell(OpenRound(base=BASE, pool=self.pool, at=self.at))
        self.tell(ReplaceMembers(pool=self.pool, at=self.at))

    def _steer(self) -> None:
        try:
            self.tell(
                self.data.draw(
                    st.one_of(
                        st.just(PauseFederation(reason="", at=self.at)),
                        st.just(ResumeFederation(base=BASE, pool=self.pool, at=self.at)),
                        POLICIES.map(
                            lambda written: ChangePolicy(
                                changes=written, reason="", base=BASE, pool=self.pool, at=self.at
                            )
                        ),
                    )
                )
            )
        except Rejected as refused:
            assert refused.errors, "only a policy with broken rules is refused"

    def _trained(self, state: Training) -> RecordCheckpoint:
        wanted = [
            *(
                work_id(FED, state.round_number, state.attempt, "train", one.client_id)
                for one in state.cohort
            ),
            *(one.work_id for one in state.owed),
        ]
        owing = self.data.draw(st.lists(st.sampled_from(wanted), unique=True))
        return RecordCheckpoint(
            round_number=state.round_number, attempt=state.attempt,
            checkpoint=ref(f"r{state.round_number}"), n_updates=1, training={}, pool=self.pool,
            at=self.at, owing=tuple(owing),
        )  # fmt: skip

    def _failed(self, number: int, attempt: int, exchange: str) -> FailExchange:
        return FailExchange(
            round_number=number, attempt=attempt, exchange=exchange, code="quorum-missed",
            reason="why", pool=self.pool, at=self.at,
        )  # fmt: skip


def walked(data: st.DataObject) -> Walk:
    walk = Walk(data)
    for _ in range(data.draw(st.integers(0, 25))):
        if isinstance(walk.state, Ended):
            break
        walk.step()
    return walk


def clients(members: Any) -> list[str]:
    return [one.client_id for one in members]


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_nobody_has_two_places_and_nobody_is_asked_while_it_owes(data: st.DataObject) -> None:
    walk = walked(data)
    state: State = Nothing()
    for event in walk.events:
        state = federation.evolve(state, event)
        if isinstance(event, RoundStarted | RoundEvaluationStarted | RoundMemberReplaced):
            members = state.cohort if isinstance(state, Training) else ()
            if isinstance(event, RoundEvaluationStarted):
                members = event.cohort
            owed = getattr(state, "owed", ())
            assert len(set(clients(members))) == len(members)
            assert len({one.seed for one in members}) == len(members)
            assert len(set(clients(owed))) == len(owed)
            assert not set(clients(members)) & set(clients(owed))


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_every_exchange_can_be_closed_and_late_work_is_of_an_earlier_round(
    data: st.DataObject,
) -> None:
    for event in walked(data).events:
        if isinstance(event, ExchangeStarted):
            n_owed = len(event.owed) if isinstance(event, RoundStarted) else 0
            assert 1 <= event.n_required <= event.goal <= len(event.cohort) + n_owed
        if isinstance(event, RoundStarted):
            assert all(one.round_number < event.round_number for one in event.owed)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_what_is_not_over_has_a_deadline_at_which_something_happens(data: st.DataObject) -> None:
    walk = walked(data)
    if isinstance(walk.state, Ended):
        return
    due_at, waited = NOON, timedelta()
    for event in walk.events:
        if isinstance(event, FederationCreated):
            waited = patience(event.federation_spec.spec.round_policy)
        elif isinstance(event, FederationPolicyChanged):
            waited = patience(event.round_policy)
        due_at = due_after(event, waited) or due_at
    assert decide(walk.state, CheckDeadline(pool=walk.pool, at=due_at)) != []


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_person_may_pause_resume_and_cancel_at_any_moment(data: st.DataObject) -> None:
    walk = walked(data)
    if isinstance(walk.state, Ended):
        return
    pause = PauseFederation(reason="", at=walk.at)
    resume = ResumeFederation(base=BASE, pool=walk.pool, at=walk.at)
    both: list[Command] = [pause, resume]
    for command in data.draw(st.permutations(both)):
        walk.tell(command)
        (end,) = decide(walk.state, CancelFederation(reason=""))
        assert isinstance(federation.evolve(walk.state, end), Ended)
        assert walk.tell(command) == [], "said twice, it is done once"


@settings(max_examples=80, deadline=None)
@given(st.data(), st.integers(0, 80))
def test_replaying_in_two_parts_gives_the_same_state(data: st.DataObject, cut: int) -> None:
    events = walked(data).events
    codes = [type(event).model_validate_json(event.model_dump_json()) for event in events]
    state = federation.replay(codes[:cut])
    for event in events[cut:]:
        state = federation.evolve(state, event)
    assert state == federation.replay(events)


@pytest.mark.parametrize("policy", [{}, {"mode": "buffered", "buffer_size": 2}])
def test_a_policy_changed_back_is_the_policy_that_it_was(policy: dict[str, Any]) -> None:
    other = {"mode": "buffered", "buffer_size": 1} if not policy else {"mode": "synchronous"}
    events: list[OrchestratorEvent] = []
    submit = SubmitFederation(
        federation_id=FED, submission_id="s", spec=spec_of(round_policy=policy), problems=(),
        code_hash=CODE, at=NOON,
    )  # fmt: skip
    events += decide(Nothing(), submit)
    before = federation.replay(events)
    for changes in (other, policy or {"mode": "synchronous", "late_updates": "refuse"}):
        command = ChangePolicy(changes=changes, reason="", base=None, pool=(), at=NOON)
        events += decide(federation.replay(events), command)
    after = federation.replay(events)
    assert isinstance(before, Waiting) and isinstance(after, Waiting)
    assert RoundPolicy(**policy) == before.spec.spec.round_policy == after.spec.spec.round_policy
