"""What hangs together in a process is sent together, the parent first."""

import logging

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

from flowerbed.events import exporting
from flowerbed.events.exporting import ParentsFirst, ProtocolUnknown, exporter


class Kept(SpanProcessor):
    def __init__(self) -> None:
        self.names: list[str] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.names.append(span.name)


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def tracer(kept: Kept) -> trace.Tracer:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(ParentsFirst(kept))
    return provider.get_tracer("test")


def test_children_wait_for_their_parent(tracer: trace.Tracer, kept: Kept) -> None:
    with tracer.start_as_current_span("outer"):
        with tracer.start_as_current_span("first"), tracer.start_as_current_span("inner"):
            pass
        with tracer.start_as_current_span("second"):
            pass
        assert kept.names == []
    assert kept.names == ["outer", "second", "first", "inner"]


def test_a_span_that_outlives_its_parent_goes_alone(tracer: trace.Tracer, kept: Kept) -> None:
    outer = tracer.start_span("outer")
    child = tracer.start_span("child", context=trace.set_span_in_context(outer))
    outer.end()
    assert kept.names == ["outer"]
    child.end()
    assert kept.names == ["outer", "child"]


def test_nothing_piles_up(tracer: trace.Tracer, monkeypatch: pytest.MonkeyPatch) -> None:
    processor = tracer.span_processor._span_processors[0]  # type: ignore[attr-defined]
    for _ in range(100):
        with tracer.start_as_current_span("outer"), tracer.start_as_current_span("inner"):
            pass
    assert (processor._roots, processor._waiting) == ({}, {})


def test_a_protocol_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    with pytest.raises(ProtocolUnknown, match="'http/json': one of http/protobuf, grpc"):
        exporter("http://127.0.0.1:4318")


def test_trouble_of_the_exporter_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    name = "opentelemetry.test_seldom"
    exporting.say_seldom(name)
    for _ in range(5):
        logging.getLogger(f"{name}.exporter").error("the collector is away")
    assert caplog.messages == ["the collector is away"]
