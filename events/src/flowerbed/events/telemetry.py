"""Traces: one federation is one trace, carried by `traceparent` through events and headers.

Only the OpenTelemetry API is imported here. The SDK and its exporter are loaded when an
endpoint is configured; without one, spans cost next to nothing and the trace context that
came in still goes out.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context as TraceContext
from opentelemetry.trace import Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from flowerbed.events.context import NO_FEDERATION, Context

__all__ = [
    "SpanKind",
    "current_traceparent",
    "flush_traces",
    "set_up_tracing",
    "span",
    "trace_context",
]

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

_propagator = TraceContextTextMapPropagator()


def trace_context(traceparent: str | None) -> TraceContext | None:
    """What a span started under `traceparent` hangs on; None leaves the current one."""
    if not traceparent:
        return None
    return _propagator.extract({"traceparent": traceparent})


def current_traceparent() -> str | None:
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get("traceparent")


@contextmanager
def span(
    name: str,
    context: Context,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    linked: bool = False,
    **attributes: str | int,
) -> Iterator[Span]:
    """A span about `context`; `linked` starts it under the event's trace, not the current one."""
    parent = None
    if linked or not trace.get_current_span().get_span_context().is_valid:
        parent = trace_context(context.traceparent)
    named: dict[str, str | int] = {"tenant": context.tenant, **attributes}
    if context.correlation_id != NO_FEDERATION:
        named["federation_id"] = context.correlation_id
    tracer = trace.get_tracer("flowerbed.events")
    with tracer.start_as_current_span(name, context=parent, kind=kind, attributes=named) as opened:
        yield opened


def set_up_tracing(service: str, otlp_endpoint: str | None) -> bool:
    """Export spans over OTLP/HTTP if an endpoint is set here or by the standard variables."""
    if otlp_endpoint is None and not any(os.environ.get(name) for name in _ENDPOINTS):
        return False
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    endpoint = f"{otlp_endpoint.rstrip('/')}/v1/traces" if otlp_endpoint else None
    provider = TracerProvider(resource=Resource.create({"service.name": f"flowerbed-{service}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    trace.set_tracer_provider(provider)
    return True


def flush_traces() -> None:
    """Send what is still held back; called once, when the service stops."""
    shutdown = getattr(trace.get_tracer_provider(), "shutdown", None)
    if shutdown is not None:
        shutdown()
