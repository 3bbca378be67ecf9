"""How often somebody may ask: the rate holds, bursts are allowed, what is remembered is bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowerbed.gateway.rates import Limiter, Rate


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_so_many_at_once_and_then_one_after_another() -> None:
    clock = Clock()
    limiter = Limiter(Rate(6, 60), clock=clock)
    assert [limiter.take("a").remaining for _ in range(6)] == [5, 4, 3, 2, 1, 0]
    refused = limiter.take("a")
    assert not refused.is_allowed and refused.retry_after == pytest.approx(10)
    assert limiter.take("b").is_allowed, "another name has a rate of its own"
    clock.now += 9.9
    assert not limiter.take("a").is_allowed
    clock.now += 0.2
    assert limiter.take("a").is_allowed
    assert not limiter.take("a").is_allowed


@given(st.lists(st.floats(0, 5), min_size=1, max_size=200))
def test_no_window_has_more_than_twice_the_rate_and_asking_in_vain_costs_nothing(
    pauses: list[float],
) -> None:
    clock, allowed = Clock(), list[float]()
    limiter = Limiter(Rate(10, 10), clock=clock)
    for pause in pauses:
        clock.now += pause
        if limiter.take("a").is_allowed:
            allowed.append(clock.now)
        else:
            assert limiter.take("a").retry_after <= 1.0 + 1e-6
    for begin in allowed:
        assert sum(begin <= at < begin + 10 for at in allowed) <= 20
    assert len(allowed) <= 10 + (clock.now - 1000.0) + 1


def test_what_is_remembered_is_bounded_and_the_busy_stay_known() -> None:
    limiter = Limiter(Rate(2, 60), clock=Clock(), most_names=100)
    for number in range(1000):
        limiter.take("busy")
        limiter.take(f"address-{number}")
    assert not limiter.take("busy").is_allowed


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("600/minute", Rate(600, 60)), ("10 / second", Rate(10, 1)),
        ("100/5 minutes", Rate(100, 300)), ("1/hour", Rate(1, 3600)),
    ],
)  # fmt: skip
def test_a_rate_is_written_as_people_say_it(text: str, rate: Rate) -> None:
    assert Rate.parse(text) == rate


@pytest.mark.parametrize(
    "text", ["", "0/minute", "-1/minute", "many", "5/fortnight", "5/0 minutes"]
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no rate"):
        Rate.parse(text)
