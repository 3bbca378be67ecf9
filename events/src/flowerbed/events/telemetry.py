"""Traces: one federation is one trace, and its spans hang on ids that everyone can derive.

Only the OpenTelemetry API is imported here. The SDK and its exporter are loaded when an
endpoint is configured; without one, spans cost next to nothing and log lines still name the trace.
"""

import os
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.context import Context as TraceContext
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from flowerbed.contracts.trace import of_federation
from flowerbed.events import logs
from flowerbed.events.context import NO_FEDERATION, Context

if TYPE_CHECKING:
    from flowerbed.events.routes import Routes

__all__ = [
    "SpanKind",
    "current_traceparent",
    "endpoint_is_set",
    "exemplar",
    "flush_traces",
    "is_exporting",
    "routes",
    "set_up_tracing",
    "span",
    "trace_context",
    "traceparent_of",
]

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
FLUSH_SECONDS = 3.0
"""A collector that is away must not hold up a service that stops."""

_ATTRIBUTES = {"round_number": "round_num", "attempt": "attempt", "client_id": "client_id"}
_propagator = TraceContextTextMapPropagator()
_shutdown: list[Callable[[], None]] = []
_routes: list["Routes"] = []
_own: list[str] = []


def trace_context(traceparent: str | None) -> TraceContext | None:
    """What a span started under `traceparent` hangs on; None leaves the current one."""
    if not traceparent:
        return None
    return _propagator.extract({"traceparent": traceparent})


def current_traceparent() -> str | None:
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get("traceparent")


def traceparent_of(context: Context) -> str | None:
    """What an event's header says: its federation's span, or the nearest cause where it has none.

    Never a span of this process: that may be lost with the process, and its children be orphans.
    """
    if context.correlation_id == NO_FEDERATION:
        return current_traceparent() or context.traceparent
    return of_federation(context.correlation_id)


def _described(subject: object) -> dict[str, str | int]:
    """What an event or a command says of itself, as span attributes."""
    found = {name: getattr(subject, key, None) for key, name in _ATTRIBUTES.items()}
    return {name: value for name, value in found.items() if isinstance(value, str | int)}


@contextmanager
def span(
    name: str,
    context: Context,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    under: str | None = None,
    about: object = None,
    **attributes: str | int,
) -> Iterator[Span]:
    """A span about `context`: in its federation's trace if it has one.

    `about`: an event or a command, for what it says of itself.

    `under`: the traceparent of the derived span that it belongs to; else it belongs to the running
    span, or to the federation. What caused it in another trace is linked.
    """
    named = {"tenant": context.tenant, **_described(about), **attributes}
    federation_id = None
    running = trace.get_current_span().get_span_context()
    parent, links = None, list[Link]()
    if context.correlation_id != NO_FEDERATION:
        named["federation_id"] = federation_id = context.correlation_id
        above = _span_context(under or of_federation(context.correlation_id))
        if under is not None or running.trace_id != above.trace_id:
            parent = trace.set_span_in_context(NonRecordingSpan(above))
        links = _links(above.trace_id, running, context.traceparent)
    elif not running.is_valid:
        parent = trace_context(context.traceparent)
    tracer = trace.get_tracer("flowerbed.events")
    with (
        logs.about(federation_id),
        tracer.start_as_current_span(
            name, context=parent, kind=kind, attributes=named, links=links
        ) as opened,
    ):
        yield opened


def _links(trace_id: int, running: SpanContext, traceparent: str | None) -> list[Link]:
    """To whatever led to a span from outside of its trace."""
    if not is_exporting():
        return []
    caused = trace.get_current_span(trace_context(traceparent)).get_span_context()
    known = {cause.span_id: cause for cause in (running, caused) if cause.is_valid}
    return [Link(cause) for cause in known.values() if cause.trace_id != trace_id]


def _span_context(traceparent: str) -> SpanContext:
    """Of a traceparent that we made ourselves."""
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
    )


def is_exporting() -> bool:
    return bool(_shutdown)


def exemplar(traceparent: str | None) -> dict[str, str] | None:
    """What links a measurement to its trace; None where nobody could look it up."""
    if traceparent is None or not _own:
        return None
    _, trace_id, span_id, _ = traceparent.split("-")
    return {"trace_id": trace_id, "span_id": span_id}


def endpoint_is_set(otlp_endpoint: str | None) -> bool:
    """By the settings, or by the standard variables."""
    return otlp_endpoint is not None or any(os.environ.get(name) for name in ENDPOINTS)


def set_up_tracing(
    service: str,
    otlp_endpoint: str | None,
    otlp_protocol: str | None = None,
    otlp_allowed: Collection[str] = (),
) -> bool:
    """Export spans by OTLP if an endpoint is set here or by the standard variables, and to those
    of specs whose origins are allowed."""
    if not (endpoint_is_set(otlp_endpoint) or otlp_allowed):
        return False
    from flowerbed.events import exporting
    from flowerbed.events.routes import Routes

    following: list[Any] = []
    if endpoint_is_set(otlp_endpoint):
        following.append(exporting.batches(otlp_endpoint, otlp_protocol))
        _own.append(service)
    if otlp_allowed:
        _routes.append(Routes(otlp_allowed))
        following.append(_routes[-1])
    provider: Any = exporting.provider(service, *following)
    trace.set_tracer_provider(provider)
    _shutdown.append(provider.shutdown)
    return True


def routes() -> "Routes | None":
    """What sends spans to the endpoints of specs, where any is allowed."""
    return _routes[-1] if _routes else None


def flush_traces() -> None:
    """Send what is still held back; called once, when the service stops."""
    _routes.clear()
    _own.clear()
    while _shutdown:
        sending = threading.Thread(target=_shutdown.pop(), daemon=True)
        sending.start()
        sending.join(FLUSH_SECONDS)
