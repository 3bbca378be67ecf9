"""Senders to collectors that specs name: few, closed when unused, with nothing of our own."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Status, StatusCode

from flowerbed.contracts.telemetry import OtlpProtocol, Telemetry
from flowerbed.events.destinations import (
    BUSY_SECONDS,
    IDLE_SECONDS,
    Destinations,
    bare_exporter,
)
from tests.support.collector import Collector, collector
from tests.support.field import until
from tests.support.spans import span_of
from tests.unit.events.test_routes import Clock


class Made(SpanExporter):
    """`opened` and `closed` are what happened to all of them."""

    opened: list[str]
    closed: list[str]

    def __init__(self, to: Telemetry) -> None:
        self.name = to.address.host
        self.opened.append(self.name)

    def export(self, spans: Any) -> SpanExportResult:
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.closed.append(self.name)


@pytest.fixture
def made() -> type[Made]:
    Made.opened, Made.closed = [], []
    return Made


def at(name: str, protocol: OtlpProtocol = "http/protobuf") -> Telemetry:
    return Telemetry(otlp_endpoint=f"http://{name}", otlp_protocol=protocol)


def test_a_sender_is_opened_once_and_the_oldest_gives_way(made: type[Made]) -> None:
    clock = Clock()
    destinations = Destinations(2, made, clock)
    for name in ("a", "b", "a"):
        destinations.send(at(name), span_of("fed-1", "one"))
    clock.now = BUSY_SECONDS + 1
    destinations.send(at("a"), span_of("fed-1", "one"))
    destinations.send(at("c"), span_of("fed-1", "one"))
    assert made.opened == ["a", "b", "c"]
    until(lambda: made.closed == ["b"], "the oldest is closed", 5)
    destinations.close()
    assert (sorted(made.closed), destinations.n_open) == (["a", "b", "c"], 0)


def test_while_all_are_in_use_a_further_one_is_not_opened(
    made: type[Made], caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    destinations = Destinations(2, made, clock)
    for number in range(50):
        destinations.send(at(f"host-{number}"), span_of("fed-1", "one"))
    assert (made.opened, made.closed) == (["host-0", "host-1"], [])
    assert caplog.messages == ["spans for more than 2 collectors are dropped"]
    destinations.close()


def test_who_is_unused_is_closed(made: type[Made]) -> None:
    clock = Clock()
    destinations = Destinations(2, made, clock)
    destinations.send(at("a"), span_of("fed-1", "one"))
    clock.now = IDLE_SECONDS - 1
    destinations.send(at("b"), span_of("fed-1", "one"))
    clock.now = IDLE_SECONDS + 1
    destinations.close_idle()
    until(lambda: made.closed == ["a"], "the idle one is closed", 5)
    assert destinations.n_open == 1
    destinations.close()


def test_an_exporter_that_cannot_be_made_costs_the_spans_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(to: Telemetry) -> SpanExporter:
        raise OSError("no such file")

    destinations = Destinations(2, broken, Clock())
    for _ in range(5):
        destinations.send(at("a"), span_of("fed-1", "one"))
    assert caplog.messages == ["no spans can be sent to http://a:80"]


@pytest.fixture
def receiver() -> Iterator[Collector]:
    with collector() as found:
        yield found


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_spans_arrive_at_a_real_collector(receiver: Collector, protocol: OtlpProtocol) -> None:
    url = receiver.grpc_url if protocol == "grpc" else receiver.http_url
    destinations = Destinations()
    to = Telemetry(otlp_endpoint=url, otlp_protocol=protocol)
    for name in ("one", "two"):
        destinations.send(to, span_of("fed-1", name))
    destinations.close()
    assert [one.name for one in receiver.spans("fed-1")] == ["one", "two"]
    assert all("authorization" not in headers for headers in receiver.headers)


@pytest.mark.timeout(120)
def test_a_collector_that_is_away_holds_nothing_up(receiver: Collector) -> None:
    destinations = Destinations()
    for number in range(3000):
        destinations.send(at("127.0.0.1:9"), span_of("fed-1", f"lost {number}"))
    destinations.send(Telemetry(otlp_endpoint=receiver.http_url), span_of("fed-2", "there"))
    until(lambda: receiver.spans("fed-2"), "the other one has its span", 5)
    threading.Thread(target=destinations.close, daemon=True).start()


SECRETS = {
    "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20ours,x-key=ours",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "api-key=ours",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9",
    "OTEL_EXPORTER_OTLP_INSECURE": "false",
}


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_nothing_that_is_the_operators_own_goes_along(
    receiver: Collector, protocol: OtlpProtocol, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ours password ours\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    url = receiver.grpc_url if protocol == "grpc" else receiver.http_url
    exporter = bare_exporter(Telemetry(otlp_endpoint=url, otlp_protocol=protocol))
    assert exporter.export([span_of("fed-1", "one")]) is SpanExportResult.SUCCESS
    exporter.shutdown()
    assert [one.name for one in receiver.spans("fed-1")] == ["one"]
    assert receiver.headers and "ours" not in repr(receiver.headers)


def test_a_client_certificate_is_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CLIENT_CERTIFICATE", "CLIENT_KEY"):
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", str(tmp_path / name))
    exporter: Any = bare_exporter(at("127.0.0.1:9"))
    assert exporter.following._client._transport._session.cert is None
    secure = Telemetry(otlp_endpoint="https://127.0.0.1:9", otlp_protocol="grpc")
    bare_exporter(secure).shutdown()  # it would fail to read the files that are not there


def test_of_an_error_there_is_its_code_alone(
    receiver: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "host.name=ours")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "lease")
    provider = TracerProvider(shutdown_on_exit=False)
    exporter = bare_exporter(Telemetry(otlp_endpoint=receiver.http_url))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    with suppress(ValueError), tracer.start_as_current_span("outer"):
        with tracer.start_as_current_span("inner") as inner:
            inner.set_status(Status(StatusCode.ERROR, "disk-full"))
        raise ValueError("ours")
    inner_span, outer = receiver.spans()
    assert (inner_span.is_error, inner_span.why, inner_span.parent) == (
        True, "disk-full", outer.span,
    )  # fmt: skip
    assert (outer.is_error, outer.why, outer.n_events) == (True, "", 0)
    assert (outer.service, set(outer.resource)) == (
        "lease",
        {"service.name", "service.instance.id"},
    )
    provider.shutdown()


@contextmanager
def elsewhere(location: str) -> Iterator[str]:
    """A server that sends everyone on."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(307)
            self.send_header("Location", f"{location}/v1/traces")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_redirect_is_not_followed(receiver: Collector) -> None:
    with elsewhere(receiver.http_url) as url:
        exporter = bare_exporter(Telemetry(otlp_endpoint=url))
        exporter.export([span_of("fed-1", "one")])
        exporter.shutdown()
    assert (receiver.spans(), receiver.headers) == ([], [])
