"""Tokens and energy: added up where they were measured, and nowhere else."""

from typing import Any

import pytest
from prometheus_client import REGISTRY

from flowerbed.aggregator import measured, metrics
from flowerbed.contracts.update import UpdateSubmitted
from flowerbed.events.metrics import Few


def report(client: str, seconds: float = 2.0, **told: Any) -> UpdateSubmitted:
    return UpdateSubmitted(
        federation_id="fed-1", round_number=1, attempt=1, exchange="train", client_id=client,
        work_id=f"fed-1.1.1.train.{client}", lease_epoch=1, artifact=None, n_examples=5,
        train_seconds=seconds, **told,
    )  # fmt: skip


def test_what_was_measured_is_added_up_over_the_clients() -> None:
    found = measured.totals(
        [
            report("a", 2.0, n_tokens=1000, joules=40.0),
            report("b", 4.0, n_tokens=1000, joules=40.0),
            report("c", 4.0, n_tokens=400, joules_reason="no-counter"),
            report("d"),
        ]
    )
    assert (found.tokens, found.tokens_per_second) == (2400, 500 + 250 + 100)
    assert (found.joules, found.watts) == (80.0, 20.0 + 10.0)
    assert found.watts_per_token == pytest.approx(80.0 / 2000)
    assert found.unmeasured == {"no-counter": 1, "not-reported": 1}


def test_what_nobody_measured_is_no_figure() -> None:
    found = measured.totals([report("a", joules_reason="no-counter"), report("b", seconds=0.0)])
    assert (found.tokens, found.tokens_per_second, found.joules) == (None, None, None)
    assert (found.watts, found.watts_per_token) == (None, None)


def sample(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def test_a_gauge_without_a_figure_has_no_sample_and_not_the_last_one() -> None:
    of = {"tenant": "roses", "exchange": "train"}
    before = sample("fl_updates_without_energy_total", reason="no-counter") or 0.0
    measured.show(measured.totals([report("a", joules=6.0, n_tokens=3)]), **of)
    assert sample("fl_power_watts", **of) == 3.0
    assert sample("fl_watts_per_token", **of) == 2.0
    assert sample("fl_joules_total", tenant="roses") == 6.0
    measured.show(measured.totals([report("a", joules_reason="no-counter")]), **of)
    assert sample("fl_power_watts", **of) is None
    assert sample("fl_joules_total", tenant="roses") == 6.0
    assert sample("fl_updates_without_energy_total", reason="no-counter") == before + 1


def test_labels_stay_few_however_many_tenants_and_reasons_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics, "tenants", Few(3))
    monkeypatch.setattr(metrics, "reasons", Few(2))
    for number in range(40):
        found = measured.totals([report("a", n_tokens=9, joules_reason=f"reason-{number}")])
        measured.show(found, f"few-{number}", "train")
    shown = [
        sample.labels["tenant"]
        for metric in REGISTRY.collect() if metric.name == "fl_tokens_per_second"
        for sample in metric.samples if sample.labels["tenant"].startswith(("few-", "other"))
    ]  # fmt: skip
    assert sorted(shown) == ["few-0", "few-1", "few-2", "other"]
    reasons = [
        sample.labels["reason"]
        for metric in REGISTRY.collect() if metric.name == "fl_updates_without_energy"
        for sample in metric.samples if sample.labels["reason"].startswith(("reason-", "other"))
    ]  # fmt: skip
    assert set(reasons) == {"reason-0", "reason-1", "other"}
