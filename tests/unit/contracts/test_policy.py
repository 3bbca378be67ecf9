"""The round policy: which keys go together, and the time-outs that follow from one budget."""

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from flowerbed.contracts.policy import Budget, RoundPolicy
from flowerbed.contracts.problems import SpecRefused, parse_policy_changes
from tests.support.federations import spec_of

POLICIES: dict[str, dict[str, Any]] = {
    "wait for all": {},
    "k of n": {"close_at": 3},
    "deadline": {"quorum": 0.75, "deadline_seconds": 30.0},
    "over-selection": {"over_select": 1.5},
    "late updates": {"late_updates": "next_round", "staleness_exponent": 1.0, "max_staleness": 2},
    "buffered": {"mode": "buffered", "buffer_size": 3},
    "budget": {"budget_seconds": 3600.0, "max_attempts": 2},
}


@pytest.mark.parametrize("written", POLICIES.values(), ids=POLICIES)
def test_a_policy_with_every_default_written_out_is_the_same_policy(
    written: dict[str, Any],
) -> None:
    policy = RoundPolicy(**written)
    assert RoundPolicy.model_validate(policy.model_dump(mode="json")) == policy
    assert spec_of(round_policy=written).spec.round_policy == policy


def test_who_counts_late_updates() -> None:
    counting = {name for name, one in POLICIES.items() if RoundPolicy(**one).counts_late}
    assert counting == {"late updates", "buffered"}
    assert RoundPolicy.model_validate({"mode": "buffered", "bufferSize": 2}).late_updates == (
        "next_round"
    )


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"mode": "buffered"}, "needs buffer_size"),
        ({"buffer_size": 3}, "belongs to mode: buffered"),
        ({"mode": "buffered", "buffer_size": 3, "close_at": 2}, "use buffer_size"),
        ({"mode": "buffered", "buffer_size": 3, "late_updates": "refuse"}, "is next_round"),
        ({"mode": "buffered", "bufferSize": 3, "lateUpdates": "refuse"}, "is next_round"),
        ({"budget_seconds": 900, "deadline_seconds": 30}, "not both"),
        ({"budget_seconds": 243}, "at least 244 for 3 attempts"),
        ({"close_at": 0}, "greater than or equal to 1"),
        ({"over_select": 0.5}, "greater than or equal to 1"),
        ({"max_staleness": 0}, "greater than or equal to 1"),
        ({"mode": "asynchronous"}, "'synchronous' or 'buffered'"),
        ({"late_updates": "count"}, "'refuse' or 'next_round'"),
        ([], "valid dictionary"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(written: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        RoundPolicy.model_validate(written)


# --- the budget -------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ({"deadline_seconds": 60.0}, (60, 45, 90, 120, 660, 480)),
        ({"deadline_seconds": 600.0}, (600, 450, 660, 720, 6600, 2880)),
        ({"budget_seconds": 244.0}, (1, 0.75, 31, 61, 11, 244)),
        ({"budget_seconds": 4800.0}, (1000, 750, 1100, 1200, 11_000, 4800)),
        ({"deadline_seconds": 60.0, "max_staleness": 1}, (60, 45, 90, 120, 120, 480)),
        ({"deadline_seconds": 86_400.0}, (86_400, 64_800, 95_040, 103_680, 604_800, 414_720)),
    ],
)
def test_every_time_out_follows_from_what_was_declared(
    written: dict[str, float], seconds: tuple[float, ...]
) -> None:
    budget = Budget.of(RoundPolicy.model_validate(written))
    told = (
        budget.exchange, budget.replace_until, budget.close, budget.give_up, budget.late_work,
        budget.round_,
    )  # fmt: skip
    assert tuple(one.total_seconds() for one in told) == pytest.approx(seconds)


SECONDS = st.floats(0.01, 31_536_000, allow_nan=False)
ANY = st.fixed_dictionaries(
    {"max_attempts": st.integers(1, 1000), "max_staleness": st.integers(1, 1000)},
    optional={"deadline_seconds": SECONDS, "budget_seconds": SECONDS},
)


@given(ANY)
def test_each_time_out_ends_before_the_next_and_all_fit_into_the_budget(
    written: dict[str, Any],
) -> None:
    try:
        policy = RoundPolicy.model_validate(written)
    except ValidationError:
        assume(False)
        raise
    budget = Budget.of(policy)
    assert budget.replace_until < budget.exchange < budget.close < budget.give_up
    assert budget.late_work >= budget.exchange
    whole, rounding = budget.round_.total_seconds(), 1 + 1e-6
    assert (policy.max_attempts + 1) * budget.give_up.total_seconds() <= whole * rounding
    if policy.budget_seconds is not None:
        assert whole <= policy.budget_seconds * rounding


# --- changing it ------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "changes", "after"),
    [
        ({}, {}, {}),
        ({"quorum": 0.5}, {"closeAt": 3}, {"quorum": 0.5, "close_at": 3}),
        ({"close_at": 3}, {"close_at": None}, {}),
        ({"deadline_seconds": 60.0}, {"budget_seconds": 900}, {"budget_seconds": 900}),
        ({"budget_seconds": 900}, {"deadlineSeconds": 60}, {"deadline_seconds": 60}),
        ({"budget_seconds": 900}, {"budget_seconds": None}, {}),
        (
            {"close_at": 3, "late_updates": "refuse"},
            {"mode": "buffered", "buffer_size": 2},
            {"mode": "buffered", "buffer_size": 2},
        ),
        (
            {"mode": "buffered", "buffer_size": 2},
            {"mode": "synchronous"},
            {"late_updates": "next_round"},
        ),
        (
            {"mode": "buffered", "buffer_size": 2},
            {"bufferSize": 4},
            {"mode": "buffered", "buffer_size": 4},
        ),
    ],
)
def test_changed_keys_replace_those_that_they_stand_instead_of(
    before: dict[str, Any], changes: dict[str, Any], after: dict[str, Any]
) -> None:
    found = parse_policy_changes(RoundPolicy(**before), changes)
    assert found == RoundPolicy.model_validate(after)


@pytest.mark.parametrize(
    ("changes", "path", "value", "allowed"),
    [
        ({"quorum": 2}, "round_policy.quorum", "2", "input should be less than or equal to 1"),
        ({"colour": 1}, "round_policy.colour", "1", "no such key"),
        (
            {"closeAt": 1, "close_at": 2},
            "round_policy.close_at",
            "closeAt: 1, close_at: 2",
            "one spelling of the key",
        ),
        (
            {"buffer_size": 2},
            "round_policy",
            "{'buffer_size': 2}",
            "buffer_size belongs to mode: buffered",
        ),
    ],
)
def test_a_broken_rule_is_told_as_in_a_spec(
    changes: dict[str, Any], path: str, value: str, allowed: str
) -> None:
    with pytest.raises(SpecRefused) as refused:
        parse_policy_changes(RoundPolicy(), changes)
    (problem,) = refused.value.problems
    assert (problem.path, problem.value, problem.allowed) == (path, value, allowed)


def test_every_broken_rule_is_told_at_once() -> None:
    with pytest.raises(SpecRefused) as refused:
        parse_policy_changes(RoundPolicy(), {"quorum": 0, "over_select": 0, "maxAttempts": "3"})
    paths = [one.path for one in refused.value.problems]
    assert paths == [f"round_policy.{key}" for key in ("quorum", "over_select", "max_attempts")]
