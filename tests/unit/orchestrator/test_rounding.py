"""A fraction of n is counted as a person counts it, not as binary floats do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowerbed.orchestrator.exchanges import training_exchange
from flowerbed.orchestrator.state import Member
from tests.support.federations import BASE, FED, NOON, spec_of


def pool_of(n: int) -> tuple[Member, ...]:
    return tuple(
        Member(client_id=f"c{i}", lease_id=f"l{i}", lease_epoch=1, dataset_sha256=f"{i:064x}")
        for i in range(n)
    )


@pytest.mark.parametrize(
    ("n", "fraction", "goal"),
    [(100, 0.07, 7), (25, 0.28, 7), (10, 0.3, 3), (3, 0.34, 2), (1000, 0.001, 1), (20, 0.55, 11)],
)
def test_a_fraction_that_gives_a_whole_number_gives_that_number(
    n: int, fraction: float, goal: int
) -> None:
    spec = spec_of(client_fraction=fraction, min_clients=1)
    started = training_exchange(FED, spec, (1, 1), BASE, pool_of(n), NOON)
    assert (started.goal, len(started.cohort)) == (goal, goal)


@pytest.mark.parametrize(
    ("goal", "quorum", "needed"), [(20, 0.55, 11), (100, 0.07, 7), (5, 0.6, 3), (3, 0.5, 2)]
)
def test_a_quorum_needs_no_update_more_than_it_says(goal: int, quorum: float, needed: int) -> None:
    spec = spec_of(min_clients=goal, round_policy={"quorum": quorum})
    started = training_exchange(FED, spec, (1, 1), BASE, pool_of(goal), NOON)
    assert started.n_required == needed


def test_over_selection_asks_no_client_more_than_it_says() -> None:
    spec = spec_of(client_fraction=0.5, round_policy={"over_select": 1.1})
    assert len(training_exchange(FED, spec, (1, 1), BASE, pool_of(100), NOON).cohort) == 55


@given(st.integers(1, 300), st.integers(1, 100), st.integers(1, 100), st.integers(10, 30))
def test_a_round_asks_enough_and_never_too_many(
    n: int, percent: int, quorum: int, tenths: int
) -> None:
    policy = {"quorum": quorum / 100, "over_select": tenths / 10}
    spec = spec_of(client_fraction=percent / 100, min_clients=1, round_policy=policy)
    started = training_exchange(FED, spec, (1, 1), BASE, pool_of(n), NOON)
    assert started.goal == -(-percent * n // 100)
    assert started.n_required == -(-quorum * started.goal // 100)
    assert len(started.cohort) == min(n, -(-started.goal * tenths // 10))
    assert 1 <= started.n_required <= started.goal <= len(started.cohort)
