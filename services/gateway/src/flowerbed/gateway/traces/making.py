"""Spans of the SDK, made from events: what each of a page of events has ended."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from flowerbed.events.connection import Connection, Row
from flowerbed.events.errors import Unavailable
from flowerbed.events.store import EventStore
from flowerbed.gateway.traces.ended import ended_by
from flowerbed.gateway.traces.milestone import Milestone

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext

logger = logging.getLogger(__name__)

SETTLE_SECONDS = 4.0
"""What else of the same moment other services have to say is here by then."""


class CollectorAway(Unavailable):
    """It did not take the spans."""


@dataclass(frozen=True, slots=True)
class Maker:
    store: EventStore
    resource: "Resource"

    async def spans(self, connection: Connection, rows: Sequence[Row]) -> list["ReadableSpan"]:
        """What these events have ended, outermost first."""
        milestones: list[Milestone] = []
        for row in rows:
            milestones += await self._ended_by(connection, row)
        return [self._span(one) for one in milestones]

    async def _ended_by(self, connection: Connection, row: Row) -> Sequence[Milestone]:
        try:
            return await ended_by(connection, self.store.recorded(row))
        except Unavailable:
            raise
        except Exception:  # one event less in a trace, rather than no traces any more
            logger.exception("event %s is in no trace", row["id"])
            return ()

    def _span(self, milestone: Milestone) -> "ReadableSpan":
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import Status, StatusCode

        status = Status(StatusCode.ERROR, milestone.error) if milestone.error else None
        return ReadableSpan(
            name=milestone.name,
            context=_context(milestone.own),
            parent=None if milestone.parent is None else _context(milestone.parent),
            resource=self.resource,
            attributes=milestone.attributes,
            status=status or Status(StatusCode.UNSET),
            start_time=_nanoseconds(min(milestone.start, milestone.end)),
            end_time=_nanoseconds(milestone.end),
        )


def until_young(rows: Sequence[Row]) -> list[Row]:
    """The rows before the first that is not settled yet."""
    settled = []
    for row in rows:
        if row["is_young"]:
            break
        settled.append(row)
    return settled


def _context(traceparent: str) -> "SpanContext":
    from opentelemetry.trace import SpanContext, TraceFlags

    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
    )


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000) * 1000


def maker(store: EventStore) -> Maker:
    """The SDK is loaded here, so call it only where spans are exported."""
    from flowerbed.events import exporting

    return Maker(store, exporting.resource("flowerbed"))
