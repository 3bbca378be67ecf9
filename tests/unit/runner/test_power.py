"""Energy comes from a counter, or there is none and a reason."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flowerbed.runner import power
from flowerbed.runner.power import Counter, Power, find_counters


def counters(*values: list[float]) -> Callable[[], tuple[Counter, ...]]:
    """One that counts through each list."""
    return lambda: tuple(iter(one).__next__ for one in values)


@pytest.fixture(autouse=True)
def instant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "SHORTEST", 0.0)


def test_what_all_counters_counted_meanwhile_was_used() -> None:
    meter = Power(counters([10.0, 25.0], [100.0, 101.5]))
    assert meter.since(meter.read()) == 16.5
    assert meter.reason is None


def test_a_machine_without_counters_gives_a_reason_and_no_figure() -> None:
    meter = Power(lambda: "no-counter")
    assert meter.since(meter.read()) is None
    assert meter.reason == "no-counter"


def test_a_counter_that_began_anew_or_fails_gives_no_figure() -> None:
    assert (meter := Power(counters([10.0, 2.0]))).since(meter.read()) is None
    broken = Power(counters([1.0]))
    assert broken.since(broken.read()) is None
    assert broken.reason == "not-readable"
    assert broken.read() is None


def test_no_library_is_loaded_where_there_is_nothing_to_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(power, "TELLTALES", (tmp_path / "none",))
    monkeypatch.delitem(sys.modules, "zeus", raising=False)
    assert find_counters() == "no-counter"
    assert "zeus" not in sys.modules
