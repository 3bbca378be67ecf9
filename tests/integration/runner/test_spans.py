"""The site's part of a federation's trace: its own spans, and its worker's."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flowerbed.contracts.trace import of_federation, of_work
from flowerbed.contracts.values import DatasetRef
from flowerbed.runner.settings import AgentSettings
from flowerbed.runner.state import StateDir
from tests.integration.runner.conftest import BASE, AgentThread
from tests.integration.runner.control_plane import CLIENT, FEDERATION, ControlPlane, wait_for
from tests.support.collector import Collector, Received, collector

WORK = f"{FEDERATION}.1.1.train.{CLIENT}"


@pytest.fixture
def receiver() -> Iterator[Collector]:
    with collector() as found:
        yield found


@pytest.fixture
def sending(enrolled: StateDir, receiver: Collector) -> Collector:
    """The site sends its spans there."""
    settings = AgentSettings.load(enrolled)
    replace(settings, otlp_endpoint=receiver.grpc_url, otlp_protocol="grpc").save(enrolled)
    return receiver


def parent_of(span: Received) -> str:
    return f"00-{span.trace}-{span.parent}-01"


def test_the_work_of_a_site_and_of_its_worker_is_in_the_federations_trace(
    control_plane: ControlPlane,
    reference: DatasetRef,
    start_agent: Callable[[], AgentThread],
    sending: Collector,
    folder: Path,
) -> None:
    control_plane.offer()
    order: dict[str, Any] = {"dataset_sha256": reference.sha256, "config": {"epochs": 2}}
    told = of_work(FEDERATION, "as the order says")
    control_plane.orders = [
        control_plane.order(BASE, **order),
        control_plane.order(BASE, **order, round_number=2, traceparent=told),
    ]
    start_agent()
    wait_for(lambda: len(sending.spans()) >= 13, "the spans of two trainings")
    spans = {(one.name, one.attributes.get("round_num")): one for one in sending.spans()}
    assert parent_of(spans["claim", None]) == of_federation(FEDERATION)
    for name in ("download", "train", "upload", "report"):
        assert parent_of(spans[name, 1]) == of_work(FEDERATION, WORK)
        assert parent_of(spans[name, 2]) == told
    train = spans["train", 1]
    assert {"federation_id", "tenant", "client_id", "round_num"} <= train.attributes.keys()
    epochs = [one for one in sending.spans() if one.parent == train.span]
    assert [one.attributes["epoch"] for one in epochs] == [1, 2]
    assert all(train.start <= one.start < one.end <= train.end for one in epochs)
    assert {one.attributes["client_id"] for one in epochs} == {CLIENT}
    everything = repr(sending.spans())
    assert "ward 7" not in everything and str(folder) not in everything


def test_work_that_fails_is_an_error_without_the_sites_words(
    control_plane: ControlPlane,
    reference: DatasetRef,
    start_agent: Callable[[], AgentThread],
    sending: Collector,
) -> None:
    control_plane.offer()
    control_plane.orders = [
        control_plane.order(BASE, dataset_sha256=reference.sha256, config={"behave": "raise"})
    ]
    agent = start_agent()
    wait_for(lambda: control_plane.failures, "the failure")
    agent.stop()
    (train,) = [one for one in sending.spans() if one.name == "train"]
    assert train.is_error
    assert "ward 7" not in repr(sending.spans())


def test_a_collector_that_is_away_does_not_hold_up_the_work(
    control_plane: ControlPlane,
    reference: DatasetRef,
    start_agent: Callable[[], AgentThread],
    sending: Collector,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sending.is_away = True
    control_plane.offer()
    control_plane.orders = [
        control_plane.order(BASE, dataset_sha256=reference.sha256, round_number=number)
        for number in range(1, 4)
    ]
    agent = start_agent()
    wait_for(lambda: len(control_plane.reports) == 3, "three reports")
    wait_for(lambda: sending.n_refused, "the collector was asked")
    agent.stop()
    told = [one for one in caplog.messages if "do not reach the collector" in one]
    assert len(told) <= 1
