"""Finished work is known by what was asked."""

import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flowerbed.contracts.signed import Limits, WorkOrder
from flowerbed.runner import clock
from flowerbed.runner.bench import check_limits, check_used
from flowerbed.runner.errors import Refused
from flowerbed.runner.journal import (
    KEPT_FOR,
    KEPT_LEASES,
    KEPT_RESULTS,
    Finished,
    Journal,
    Spent,
    WorkKey,
)
from tests.unit.runner.test_verify import order_claims


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.sqlite3")


def key(**changes: Any) -> WorkKey:
    return WorkKey.of(WorkOrder.model_validate(order_claims(**changes)))


def finished(sha256: str | None = "a" * 64) -> Finished:
    return Finished(
        sha256=sha256, size=9, n_examples=3, metrics={"loss": 0.1 + 0.2}, train_seconds=1.5
    )


def record(journal: Journal, key: WorkKey, sha256: str, lease: str = "lease-1") -> None:
    run = journal.start_run(key, lease)
    journal.record(key, finished(sha256), run=run, epochs=2, tokens=6)


def test_work_is_found_whoever_asks_and_however_often() -> None:
    same: list[dict[str, Any]] = [
        {"attempt": 2},
        {"lease_epoch": 5},
        {"jti": "2"},
        {"work_id": "x"},
        {"exp": 1},
    ]
    assert {key(**changes).digest for changes in same} == {key().digest}


def test_anything_that_could_change_the_result_is_other_work() -> None:
    other: list[dict[str, Any]] = [
        {"federation_id": "fed-2"}, {"round_number": 2}, {"exchange": "evaluate"}, {"seed": 2},
        {"config": {"local-epochs": 2}}, {"code_hash": "0" * 64}, {"dataset_sha256": "0" * 64},
        {"base": {"uri": "s3://b/k", "sha256": "c" * 64, "size": 1}}, {"message_type": "query"},
    ]  # fmt: skip
    assert len({key(**changes).digest for changes in ({}, *other)}) == len(other) + 1


def test_recorded_work_is_found_again_after_a_restart(journal: Journal, tmp_path: Path) -> None:
    assert journal.find(key().digest) is None
    run = journal.start_run(key(), "lease-1")
    journal.record(key(), finished(), run=run, epochs=2, tokens=6)
    journal.close()
    again = Journal(tmp_path / "journal.sqlite3")
    assert again.find(key(attempt=2).digest) == finished()
    assert again.counts() == {"train": 1}


def test_a_journal_of_an_earlier_release_is_read_on(journal: Journal, tmp_path: Path) -> None:
    record(journal, key(), "a" * 64)
    journal.close()
    with sqlite3.connect(tmp_path / "journal.sqlite3") as older:
        older.execute("ALTER TABLE finished DROP COLUMN measured")
    older.close()
    found = Journal(tmp_path / "journal.sqlite3").find(key().digest)
    assert found == finished()


def test_only_finished_runs_count(journal: Journal) -> None:
    journal.start_run(key(), "lease-1")
    assert (journal.spent("lease-1"), journal.counts()) == (Spent(), {})
    record(journal, key(), "a" * 64)
    record(journal, key(round_number=2), "b" * 64)
    record(journal, key(round_number=3), "c" * 64, lease="lease-2")
    assert journal.spent("lease-1") == Spent(epochs=4, tokens=12, last_tokens_per_epoch=3.0)


def test_newest_results_are_kept_of_held_leases_and_of_those_left(journal: Journal) -> None:
    for number in range(1, 8):
        record(journal, key(round_number=number), f"held-{number}", lease="lease-1")
        record(journal, key(federation_id=f"f{number}"), f"left-{number}", lease=f"lease-{number}x")
    held = {f"held-{number}" for number in range(8 - KEPT_RESULTS, 8)}
    left = {f"left-{number}" for number in range(1, 8)}
    assert journal.needed_results({"lease-1"}) == held | left
    assert journal.needed_results(set()) == {"held-7"} | left


def test_an_agent_that_holds_no_lease_yet_keeps_what_each_may_be_asked_for_again(
    journal: Journal,
) -> None:
    """It was killed with several federations open: none of its leases is claimed again so far."""
    for number in range(KEPT_RESULTS + 4):
        record(journal, key(federation_id=f"f{number}"), f"open-{number}", lease=f"lease-{number}")
    assert "open-0" in journal.needed_results(set())


def test_results_of_leases_not_held_are_bounded_in_number_and_time(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(KEPT_LEASES + 3):
        record(journal, key(federation_id=f"f{number}"), f"r{number}", lease=f"lease-{number}")
    assert journal.needed_results(set()) == {f"r{n}" for n in range(3, KEPT_LEASES + 3)}
    later = clock.utc() + KEPT_FOR + timedelta(seconds=1)
    monkeypatch.setattr(clock, "utc", lambda: later)
    assert journal.needed_results({"lease-0"}) == {"r0"}


def limits(**bounds: int) -> Limits:
    return Limits(ttl_seconds=60, **bounds)


def test_orders_within_the_limits_pass() -> None:
    spent = Spent(epochs=4, tokens=12, last_tokens_per_epoch=3.0)
    check_limits(limits(), spent, 100)
    check_limits(limits(max_epochs=6, max_tokens=18), spent, 2)
    check_limits(limits(max_epochs=1, max_tokens=1), spent, 0)  # an evaluation trains nothing
    check_used(limits(max_tokens=18), spent, 6)
    check_used(limits(max_tokens=1), spent, 0)


@pytest.mark.parametrize(
    ("bounds", "epochs"), [({"max_epochs": 5}, 2), ({"max_tokens": 17}, 2), ({"max_tokens": 12}, 1)]
)
def test_orders_beyond_a_limit_are_refused(bounds: dict[str, int], epochs: int) -> None:
    spent = Spent(epochs=4, tokens=12, last_tokens_per_epoch=3.0)
    with pytest.raises(Refused) as refused:
        check_limits(limits(**bounds), spent, epochs)
    assert refused.value.code == "limit-exceeded"


def test_first_order_that_turns_out_beyond_the_limit_stays_at_the_site() -> None:
    check_limits(limits(max_tokens=5), Spent(), 2)
    with pytest.raises(Refused, match="0 tokens used, 6 by this order, max_tokens 5"):
        check_used(limits(max_tokens=5), Spent(), 6)
