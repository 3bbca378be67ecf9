"""What an app records with OpenTelemetry's own API in a worker, kept for the agent to export.

An app that opens a span for each epoch shows its epochs in the federation's trace; it needs to
know nothing of Flowerbed. The SDK is loaded only where spans are wanted.
"""

from typing import TYPE_CHECKING

from flowerbed.runner.pipe import SpanLine

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

MOST = 256
"""Spans of one run; those that end later are not kept."""
LONGEST_NAME = 100
MOST_ATTRIBUTES = 16


class Recorder:
    """Collects ended spans until they are taken."""

    def __init__(self) -> None:
        self._ended: list[ReadableSpan] = []

    @classmethod
    def installed(cls) -> "Recorder":
        """As the one place where this process's spans go."""
        from opentelemetry import trace
        from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

        recorder = cls()

        class Keep(SpanProcessor):
            def on_end(self, span: ReadableSpan) -> None:
                recorder.keep(span)

        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(Keep())
        trace.set_tracer_provider(provider)
        return recorder

    def keep(self, span: "ReadableSpan") -> None:
        if len(self._ended) < MOST:
            self._ended.append(span)

    def take(self) -> tuple[SpanLine, ...]:
        """In the order of their beginnings, so that a parent comes before its children."""
        ended, self._ended = sorted(self._ended, key=lambda span: span.start_time or 0), []
        places: dict[int, int] = {}
        lines: list[SpanLine] = []
        for span in ended:
            parent = span.parent.span_id if span.parent is not None else None
            places[span.context.span_id] = len(lines)
            lines.append(
                SpanLine(
                    name=span.name[:LONGEST_NAME],
                    start=span.start_time or 0,
                    end=span.end_time or 0,
                    parent=places.get(parent) if parent is not None else None,
                    attributes=_numbers(span),
                )
            )
        return tuple(lines)


def _numbers(span: "ReadableSpan") -> dict[str, bool | int | float | str]:
    """Numbers alone: what an app writes in words may say what stays at the site."""
    found = {
        name[:LONGEST_NAME]: value
        for name, value in (span.attributes or {}).items()
        if isinstance(value, bool | int | float)
    }
    return dict(list(found.items())[:MOST_ATTRIBUTES])
