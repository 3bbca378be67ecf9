"""The last error of a federation, and what caused it: an attempt fails because a client did."""

from collections.abc import Mapping, Sequence
from typing import Any

from flowerbed.contracts.aggregate import AggregateFailed
from flowerbed.contracts.client import ClientDeclined
from flowerbed.contracts.federation import FederationFailed
from flowerbed.contracts.round import RoundCompleted, RoundFailed
from flowerbed.contracts.update import UpdateFailed, UpdateQuarantined, UpdateRejected
from flowerbed.events.recorded import Recorded
from flowerbed.gateway.why.facts import Client
from flowerbed.gateway.why.view import LastError
from flowerbed.gateway.why.words import gist

TYPES = tuple(
    event.type
    for event in (
        FederationFailed, RoundFailed, RoundCompleted, AggregateFailed,
        UpdateFailed, UpdateRejected, UpdateQuarantined, ClientDeclined,
    )
)  # fmt: skip
LATE = "late"
"""A client that was not needed any more did nothing wrong."""


def last_error(events: Sequence[Recorded[Any]], clients: Mapping[str, Client]) -> LastError | None:
    """`events` of `TYPES`, in any order; those that tell of no error are left out."""
    errors = sorted(filter(_is_error, events), key=lambda one: one.recorded_at)
    if not errors:
        return None
    return _told(_cause(errors), clients)


def _is_error(one: Recorded[Any]) -> bool:
    match one.event:
        case RoundCompleted() as event:
            return bool(event.evaluation_error)
        case UpdateRejected() as event:
            return event.code != LATE
        case _:
            return True


def _cause(errors: Sequence[Recorded[Any]]) -> Recorded[Any]:
    """The newest error; where that is a consequence, the nearest cause that is known."""
    newest = errors[-1]
    if isinstance(newest.event, FederationFailed):
        attempts = [one for one in errors if isinstance(one.event, RoundFailed | AggregateFailed)]
        is_due_to_it = newest.event.code == "round-failed" and attempts
        newest = attempts[-1] if is_due_to_it else newest
    place = _place(newest)
    if place is None or isinstance(newest.event, UpdateFailed):
        return newest
    same = [one for one in errors if _place(one) == place]
    failed = [one for one in same if isinstance(one.event, UpdateFailed)]
    refused = [one for one in same if isinstance(one.event, UpdateRejected | UpdateQuarantined)]
    return (failed or refused or [newest])[-1]


def _place(one: Recorded[Any]) -> tuple[int, int, str] | None:
    match one.event:
        case RoundFailed() as event:
            return event.round_number, event.attempt, "train"
        case RoundCompleted() as event:
            return event.round_number, event.attempt, "evaluate"
        case AggregateFailed() | UpdateFailed() | UpdateRejected() | UpdateQuarantined() as event:
            return event.round_number, event.attempt, event.exchange
        case _:
            return None


def _told(one: Recorded[Any], clients: Mapping[str, Client]) -> LastError:
    event = one.event
    text = _text(event)
    client = clients.get(getattr(event, "client_id", ""))
    return LastError(
        at=one.recorded_at,
        code="evaluation-failed" if isinstance(event, RoundCompleted) else event.code,
        detail=gist(text),
        traceback=text.strip("\n") if "\n" in text.strip() else None,
        client_id=getattr(event, "client_id", None),
        label="" if client is None else client.shown_label,
        where=_where(one),
    )


def _text(event: Any) -> str:
    match event:
        case RoundCompleted():
            return event.evaluation_error
        case FederationFailed() | RoundFailed() | AggregateFailed():
            return str(event.reason)
        case _:
            return str(event.detail)


def _where(one: Recorded[Any]) -> str:
    place = _place(one)
    if place is None:
        return "its lease" if isinstance(one.event, ClientDeclined) else "the federation"
    number, attempt, exchange = place
    if exchange == "initialize":
        return "the base checkpoint"
    again = f", attempt {attempt}" if attempt > 1 else ""
    return f"round {number}{again}, {exchange}"
