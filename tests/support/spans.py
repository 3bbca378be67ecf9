"""Spans as a process makes them, for tests of where they go."""

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, TraceFlags

from flowerbed.contracts.trace import span_id, trace_id


def span_of(federation_id: str, name: str, *, is_named: bool = True) -> ReadableSpan:
    """One of a federation's trace; `is_named`: it says of which federation it is."""
    context = SpanContext(
        int(trace_id(federation_id), 16),
        int(span_id(federation_id, "test", name), 16),
        is_remote=False,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )
    attributes = {"federation_id": federation_id} if is_named else {}
    return ReadableSpan(name=name, context=context, attributes=attributes, start_time=1, end_time=2)
