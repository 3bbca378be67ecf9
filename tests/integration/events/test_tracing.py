"""Spans leave by OTLP, over gRPC and HTTP, when an endpoint is set, and only then."""

import asyncio
import os
import sys
from collections.abc import Iterator

import pytest

from flowerbed.contracts.trace import of_federation, of_round
from flowerbed.events.telemetry import set_up_tracing
from tests.support.collector import Collector, collector

PROGRAM = """
import logging, sys, time
from flowerbed.contracts.trace import of_round
from flowerbed.events.context import Context
from flowerbed.events.telemetry import flush_traces, set_up_tracing, span
logging.basicConfig(format="%(message)s")
assert set_up_tracing("lease", {endpoint!r}, {protocol!r})
about = Context(tenant="roses", correlation_id="fed-1")
for number in range({times}):
    with span("operator", Context(tenant="roses")):
        with span("water", about, under=of_round("fed-1", 3, 1), round_num=3):
            with span("pour", about):
                pass
    time.sleep({pause})
began = time.monotonic()
flush_traces()
print(time.monotonic() - began)
"""
VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


@pytest.fixture
def receiver() -> Iterator[Collector]:
    with collector() as found:
        yield found


async def run(
    endpoint: str | None, protocol: str | None = None,
    environment: dict[str, str] | None = None, *, times: int = 1, pause: float = 0.0,
) -> tuple[float, list[str]]:  # fmt: skip
    """How long the last sending took, and what was logged."""
    program = PROGRAM.format(endpoint=endpoint, protocol=protocol, times=times, pause=pause)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, env={**os.environ, **(environment or {})},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    return float(out), err.decode().splitlines()


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("by_environment", [False, True])
async def test_spans_are_exported(receiver: Collector, protocol: str, by_environment: bool) -> None:
    url = receiver.grpc_url if protocol == "grpc" else receiver.http_url
    if by_environment:
        variables = {VARIABLES[0]: url, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
        await run(None, None, variables)
    else:
        await run(url, protocol)
    operator, water, pour = sorted(
        receiver.spans(), key=lambda one: ("operator", "water", "pour").index(one.name)
    )
    assert {one.service for one in receiver.spans()} == {"flowerbed-lease"}
    assert water.attributes == {"tenant": "roses", "federation_id": "fed-1", "round_num": 3}
    assert f"00-{water.trace}-{water.parent}-01" == of_round("fed-1", 3, 1)
    assert (pour.trace, pour.parent) == (water.trace, water.span)
    assert operator.trace not in of_federation("fed-1")
    assert water.links == (operator.trace,), "another trace that led to it is linked"


async def test_a_parent_is_sent_before_its_children(receiver: Collector) -> None:
    await run(receiver.http_url)
    assert [one.name for one in receiver.spans()] == ["water", "pour", "operator"]


async def test_a_collector_that_is_away_blocks_nobody_and_is_named_once() -> None:
    variables = {"OTEL_BSP_SCHEDULE_DELAY": "20", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    seconds, log = await run("http://127.0.0.1:9", None, variables, times=20, pause=0.1)
    assert seconds < 20.0, "OpenTelemetry's own flush would wait for 30"
    assert len(log) == 1, log


def test_nothing_is_set_up_without_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert not set_up_tracing("lease", None)


ROUTED = """
from flowerbed.contracts.telemetry import Telemetry
from flowerbed.contracts.trace import of_federation
from flowerbed.events.context import Context
from flowerbed.events.telemetry import exemplar, flush_traces, is_exporting, routes
from flowerbed.events.telemetry import set_up_tracing, span
assert set_up_tracing("lease", {own!r}, None, [{theirs!r}])
for name in ("fed-1", "fed-2", "fed-3"):
    with span("water", Context(tenant="roses", correlation_id=name)):
        pass
found = routes()
assert sorted(found.asked()) == ["fed-1", "fed-2", "fed-3"], found.asked()
theirs = Telemetry(otlp_endpoint={theirs!r}, otlp_protocol="grpc")
elsewhere = Telemetry(otlp_endpoint="http://127.0.0.1:9")
found.told({{"fed-1": theirs, "fed-2": None, "fed-3": elsewhere}})
print(is_exporting(), exemplar(of_federation("fed-1")) is not None)
flush_traces()
assert routes() is None
"""


@pytest.mark.parametrize("has_own", [False, True])
async def test_a_spec_has_its_spans_sent_where_it_says_with_or_without_a_collector_of_ours(
    receiver: Collector, has_own: bool
) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    with collector() as theirs:
        own = receiver.http_url if has_own else None
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", ROUTED.format(own=own, theirs=theirs.grpc_url), env=kept,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, err.decode()
        assert out.decode().split() == ["True", str(has_own)], "no exemplar of a trace we lack"
        assert [one.attributes["federation_id"] for one in theirs.spans()] == ["fed-1"]
    ours = sorted(one.attributes["federation_id"] for one in receiver.spans())
    assert ours == (["fed-1", "fed-2", "fed-3"] if has_own else [])
