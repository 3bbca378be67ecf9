"""Trace ids and span ids that are derived: one federation is one trace, in every process.

    federation
     ├── submission, lease (per client), initialize
     └── round (per attempt)
          ├── exchange train, and evaluate
          │    ├── work (per client) ── work order, download, train, upload, report, screening
          │    └── fold
          └── artifact

These spans begin in one process and end in another. Everyone can name such a span as a parent
without having been told its id, and whoever exports it twice exports the same span. A parent that
another process is to know is always one of these: a random id may die with its process.
"""

import hashlib
from functools import lru_cache

from flowerbed.contracts.aggregate import AggregateCompleted, AggregateFailed
from flowerbed.contracts.event import NO_FEDERATION
from flowerbed.contracts.update import UpdateEvent

SAMPLED = "01"


@lru_cache(maxsize=1024)
def trace_id(federation_id: str) -> str:
    """32 hex digits, as W3C Trace Context and OpenTelemetry have them."""
    return _digest("trace", federation_id)[:32]


def span_id(federation_id: str, kind: str, *parts: str | int) -> str:
    """16 hex digits. `parts` tell the spans of one kind in one federation apart."""
    return _digest("span", federation_id, kind, *map(str, parts))[:16]


def traceparent(federation_id: str, kind: str, *parts: str | int) -> str:
    """A derived span as W3C Trace Context names it."""
    return f"00-{trace_id(federation_id)}-{span_id(federation_id, kind, *parts)}-{SAMPLED}"


@lru_cache(maxsize=1024)
def of_federation(federation_id: str) -> str:
    """The federation's own span."""
    return traceparent(federation_id, "federation")


def of_round(federation_id: str, round_number: int, attempt: int) -> str:
    return traceparent(federation_id, "round", round_number, attempt)


def of_exchange(federation_id: str, round_number: int, attempt: int, exchange: str) -> str:
    return traceparent(federation_id, "exchange", round_number, attempt, exchange)


def of_work(federation_id: str, work_id: str) -> str:
    """One client's part of an exchange."""
    return traceparent(federation_id, "work", work_id)


def of_screening(federation_id: str, work_id: str) -> str:
    return traceparent(federation_id, "screening", work_id)


def scope_of(event: object) -> str | None:
    """The narrowest of these spans that the fact belongs to; None if it is of no federation."""
    federation_id = getattr(event, "federation_id", NO_FEDERATION)
    if federation_id == NO_FEDERATION:
        return None
    number, attempt = getattr(event, "round_number", 0), getattr(event, "attempt", 0)
    match event:
        case UpdateEvent():
            return of_work(federation_id, event.work_id)
        case AggregateCompleted() | AggregateFailed():
            return of_exchange(federation_id, number, attempt, event.exchange)
        case _ if number and attempt:
            return of_round(federation_id, number, attempt)
        case _:
            return of_federation(federation_id)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
