"""The OpenTelemetry SDK, loaded where spans are exported: by OTLP over gRPC or HTTP.

A collector that is away costs nothing but the spans: they wait in a bounded queue, and the log
says so seldom.
"""

import logging
import os
import threading
import time

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from flowerbed.events.errors import FlowerbedError

PROTOCOLS = ("http/protobuf", "grpc")
PROTOCOL_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
DELAY_MILLIS = 500
"""How long a span waits for others. OTEL_BSP_SCHEDULE_DELAY wins."""
QUEUE_SIZE = 16_384
"""Spans that wait for a collector that is away. OTEL_BSP_MAX_QUEUE_SIZE wins."""
TIMEOUT_SECONDS = 5.0
SAY_AGAIN = 600.0
MOST_OPEN = 10_000


class ProtocolUnknown(FlowerbedError):
    """Neither gRPC nor HTTP with protobuf."""


def exporter(endpoint: str | None, protocol: str | None = None) -> SpanExporter:
    """`endpoint` is the collector's base address; None is what the standard variables say.

    Raises:
        ProtocolUnknown: `protocol`, or the variable for it, says another.
    """
    named = [protocol, *(os.environ.get(name) for name in PROTOCOL_VARIABLES), PROTOCOLS[0]]
    chosen = next(name for name in named if name)
    match chosen:
        case "grpc":
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
                OTLPSpanExporter as GrpcExporter,
            )

            return GrpcExporter(endpoint=endpoint, timeout=TIMEOUT_SECONDS)
        case "http/protobuf":
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
                OTLPSpanExporter as HttpExporter,
            )

            path = f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None
            return HttpExporter(endpoint=path, timeout=TIMEOUT_SECONDS)
        case _:
            raise ProtocolUnknown(f"the OTLP protocol is {chosen!r}: one of {', '.join(PROTOCOLS)}")


def resource(service: str) -> Resource:
    return Resource.create({"service.name": service})


def provider(service: str, *following: SpanProcessor) -> TracerProvider:
    """Hands its spans to each of `following`."""
    say_seldom("opentelemetry")
    made = TracerProvider(resource=resource(f"flowerbed-{service}"), shutdown_on_exit=False)
    made.add_span_processor(ParentsFirst(*following))
    return made


def batches(endpoint: str | None, protocol: str | None) -> SpanProcessor:
    """To the operator's own collector."""
    delay = None if os.environ.get("OTEL_BSP_SCHEDULE_DELAY") else DELAY_MILLIS
    size = None if os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE") else QUEUE_SIZE
    return BatchSpanProcessor(
        exporter(endpoint, protocol), max_queue_size=size, schedule_delay_millis=delay
    )


class ParentsFirst(SpanProcessor):
    """Hands on what hangs together in this process when its outermost span has ended.

    So a process that is killed leaves no span behind whose parent was never sent.
    """

    def __init__(self, *following: SpanProcessor) -> None:
        self._following = following
        self._waiting: dict[int, list[ReadableSpan]] = {}
        self._roots: dict[int, int] = {}
        self._lock = threading.Lock()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        parent, own = span.parent, span.context.span_id
        with self._lock:
            if parent is not None and not parent.is_remote and parent.span_id in self._roots:
                self._roots[own] = self._roots[parent.span_id]
            elif len(self._waiting) < MOST_OPEN:
                self._roots[own] = own
                self._waiting[own] = []

    def on_end(self, span: ReadableSpan) -> None:
        own = span.context.span_id
        with self._lock:
            root = self._roots.get(own)
            if root is None or (root != own and root not in self._waiting):
                whole = [span]  # too many are open, or it has outlived the one it belongs to
                self._roots.pop(own, None)
            elif root != own:
                self._waiting[root].append(span)
                return
            else:
                whole = [span, *reversed(self._waiting.pop(root))]
                for one in whole:
                    self._roots.pop(one.context.span_id, None)
        for one in whole:
            for following in self._following:
                following.on_end(one)

    def shutdown(self) -> None:
        """All at once: one that waits for its collector takes no time from another."""
        ending = [threading.Thread(target=one.shutdown, daemon=True) for one in self._following]
        for thread in ending:
            thread.start()
        for thread in ending:
            thread.join()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        flushed = [one.force_flush(timeout_millis) for one in self._following]
        return all(flushed)


class _Seldom(logging.Filter):
    """Lets one line through, then none for a while."""

    def __init__(self) -> None:
        super().__init__()
        self._quiet_until = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if time.monotonic() < self._quiet_until:
            return False
        self._quiet_until = time.monotonic() + SAY_AGAIN
        return True


def say_seldom(name: str) -> None:
    """Of all loggers below `name`: a collector that is away is told every ten minutes."""
    logger = logging.getLogger(name)
    if not logger.handlers:
        seldom = logging.StreamHandler() if not logging.root.handlers else _Passing()
        seldom.addFilter(_Seldom())
        logger.addHandler(seldom)
        logger.propagate = False


class _Passing(logging.Handler):
    """Hands a record to the root logger's handlers."""

    def emit(self, record: logging.LogRecord) -> None:
        for handler in logging.root.handlers:
            handler.handle(record)
