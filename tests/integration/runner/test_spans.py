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
from tests.integration.runner.control_plane import (
    CLIENT,
    FEDERATION,
    LEASE,
    ControlPlane,
    wait_for,
)
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


# --- a federation that names a collector of its own -----------------------------------------


@pytest.fixture
def theirs() -> Iterator[Collector]:
    with collector() as found:
        yield found


def trained(control_plane: ControlPlane, reference: DatasetRef, theirs: Collector) -> None:
    """One order of a federation that asks for its spans there."""
    control_plane.offer(otlp_endpoint=theirs.grpc_url, otlp_protocol="grpc")
    order: dict[str, Any] = {"dataset_sha256": reference.sha256, "config": {"epochs": 2}}
    control_plane.orders = [control_plane.order(BASE, **order)]


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one for one in caplog.messages if "--otlp-allow" in one]


NAMES = {"claim", "download", "train", "epoch", "upload", "report"}


@pytest.mark.parametrize("has_own", [False, True])
def test_spans_go_where_the_spec_says_if_the_site_allows_it(
    control_plane: ControlPlane,
    reference: DatasetRef,
    start_agent: Callable[[], AgentThread],
    enrolled: StateDir,
    receiver: Collector,
    theirs: Collector,
    has_own: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = AgentSettings.load(enrolled)
    own = receiver.http_url if has_own else None
    replace(settings, otlp_endpoint=own, otlp_allowed=(theirs.grpc_url,)).save(enrolled)
    trained(control_plane, reference, theirs)
    start_agent()
    wait_for(lambda: len(theirs.spans()) >= 7, "the spans of a training")
    assert {one.name for one in theirs.spans()} == NAMES
    assert {one.attributes["federation_id"] for one in theirs.spans()} == {FEDERATION}
    wait_for(lambda: len(receiver.spans()) >= 7 * has_own, "the site's own collector has them")
    ids = {one.span for one in theirs.spans()}
    assert {one.span for one in receiver.spans()} == (ids if has_own else set())
    assert told(caplog) == []


@pytest.mark.parametrize("has_own", [False, True])
def test_a_site_that_does_not_allow_it_says_so_once_and_trains_anyway(
    control_plane: ControlPlane,
    reference: DatasetRef,
    start_agent: Callable[[], AgentThread],
    enrolled: StateDir,
    receiver: Collector,
    theirs: Collector,
    has_own: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = AgentSettings.load(enrolled)
    own = receiver.http_url if has_own else None
    allowed = ("http://127.0.0.1:9",)
    replace(settings, otlp_endpoint=own, otlp_allowed=allowed).save(enrolled)
    trained(control_plane, reference, theirs)
    agent = start_agent()
    wait_for(lambda: control_plane.reports, "the report")
    control_plane.lost.add((LEASE, 1))
    again: dict[str, Any] = {
        "dataset_sha256": reference.sha256, "round_number": 2, "lease_epoch": 2,
    }  # fmt: skip
    control_plane.orders = [control_plane.order(BASE, **again)]
    control_plane.offer(epoch=2, otlp_endpoint=theirs.grpc_url, otlp_protocol="grpc")
    wait_for(lambda: len(control_plane.reports) == 2, "the report under a second lease")
    agent.stop()
    assert theirs.headers == []
    assert len(told(caplog)) == 1 and theirs.grpc_url in told(caplog)[0]


def test_what_is_no_address_is_refused_at_the_site_too(
    control_plane: ControlPlane,
    reference: DatasetRef,
    start_agent: Callable[[], AgentThread],
    caplog: pytest.LogCaptureFixture,
) -> None:
    control_plane.offer(otlp_endpoint="http://a@b/?c", otlp_protocol="smoke")
    control_plane.orders = [control_plane.order(BASE, dataset_sha256=reference.sha256)]
    start_agent()
    wait_for(lambda: control_plane.reports, "the report")
    assert len(told(caplog)) == 1


def test_what_was_allowed_is_kept_for_the_agent(enrolled: StateDir) -> None:
    settings = replace(AgentSettings.load(enrolled), otlp_allowed=("http://a.example:80",))
    settings.save(enrolled)
    assert AgentSettings.load(enrolled) == settings
