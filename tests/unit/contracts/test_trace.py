"""Derived ids: the same everywhere, different for different things."""

import re

from flowerbed.contracts import trace
from flowerbed.contracts.ids import work_id
from flowerbed.contracts.round import RoundFailed
from flowerbed.contracts.update import UpdateRejected

FED = "fed-0123456789abcdef"


def test_a_derived_span_is_a_traceparent_of_its_federations_trace() -> None:
    work = work_id(FED, 1, 2, "train", "site-a")
    derived = [
        trace.of_federation(FED), trace.of_round(FED, 1, 2), trace.of_round(FED, 1, 1),
        trace.of_exchange(FED, 1, 2, "train"), trace.of_work(FED, work),
        trace.of_screening(FED, work), trace.of_round("fed-2", 1, 2),
    ]  # fmt: skip
    assert all(re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", one) for one in derived)
    assert len({one.split("-")[2] for one in derived}) == len(derived)
    assert {one.split("-")[1] for one in derived[:-1]} == {trace.trace_id(FED)}


def test_the_ids_are_for_ever() -> None:
    """A federation goes on after an upgrade, and so does its trace."""
    assert trace.of_federation(FED) == "00-c512e1472a8f9e4328f23cc7b489c2c5-8412739060a09db7-01"


def test_a_fact_belongs_to_the_narrowest_span_that_it_names() -> None:
    place = {"federation_id": FED, "round_number": 2, "attempt": 1}
    work = work_id(FED, 1, 1, "train", "site-a")
    late = UpdateRejected(
        **place, exchange="train", client_id="site-a", work_id=work, place=0, code="late"
    )
    failed = RoundFailed(**place, code="x", reason="y", attempts_left=0)
    assert trace.scope_of(late) == trace.of_work(FED, work)
    assert trace.scope_of(failed) == trace.of_round(FED, 2, 1)
