"""What a span of the trace is made of, from a row of the read models."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

from flowerbed.contracts import trace

Attributes: TypeAlias = dict[str, str | int | float]

_MEASURED = ("n_examples", "train_seconds", "download_seconds", "upload_seconds", "n_tokens",
             "joules")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Milestone:
    """A span: `own` and `parent` are traceparents. `error`: why it came to nothing."""

    name: str
    own: str
    parent: str | None
    start: datetime
    end: datetime
    attributes: Attributes = field(default_factory=dict)
    error: str = ""


def round_span(row: Mapping[str, Any], at: datetime) -> Milestone:
    identity, number, attempt = place_of(row)
    return Milestone(
        name="round",
        own=trace.of_round(identity, number, attempt),
        parent=trace.of_federation(identity),
        start=row["started_at"] or at,
        end=at,
        attributes={"round_num": number, "attempt": attempt, "cohort": row["n_cohort"]},
        error=row["code"],
    )


def exchange_span(
    row: Mapping[str, Any], exchange: str, at: datetime, error: str = ""
) -> Milestone:
    identity, number, attempt = place_of(row)
    began = row["started_at" if exchange == "train" else "evaluation_started_at"]
    return Milestone(
        name=f"exchange {exchange}",
        own=trace.of_exchange(identity, number, attempt, exchange),
        parent=trace.of_round(identity, number, attempt),
        start=began or at,
        end=at,
        attributes={"round_num": number, "attempt": attempt, "exchange": exchange},
        error=error,
    )


def left_open(row: Mapping[str, Any], outcomes: frozenset[str]) -> Iterator[str]:
    """Exchanges that began and of which the aggregator never said how they ended."""
    if "train" not in outcomes:
        yield "train"
    if row["evaluation_started_at"] is not None and "evaluate" not in outcomes:
        yield "evaluate"


def work_spans(
    row: Mapping[str, Any], work_id: str, at: datetime, error: str = ""
) -> Iterator[Milestone]:
    identity, number, attempt = place_of(row)
    attributes: Attributes = {
        "round_num": number, "attempt": attempt, "exchange": row["exchange"],
        "client_id": row["client_id"], "status": row["status"],
    }  # fmt: skip
    for name in _MEASURED:
        if row[name] is not None:
            attributes[name] = row[name]
    own = trace.of_work(identity, work_id)
    yield Milestone(
        name="work",
        own=own,
        parent=trace.of_exchange(identity, number, attempt, row["exchange"]),
        start=row["asked_at"] or row["reported_at"] or at,
        end=at,
        attributes=attributes,
        error=error,
    )
    if row["reported_at"] is not None:
        yield Milestone(
            name="screening",
            own=trace.of_screening(identity, work_id),
            parent=own,
            start=row["reported_at"],
            end=at,
            attributes=dict(attributes),
            error=error,
        )


def work_id_of(row: Mapping[str, Any]) -> str:
    parts = ("federation_id", "round_number", "attempt", "exchange", "client_id")
    return ".".join(str(row[part]) for part in parts)


def ordered(work_id: str) -> tuple[int, int, str, str]:
    """Round, attempt, exchange and client of `contracts.ids.work_id`."""
    _, number, attempt, exchange, client = work_id.split(".", 4)
    return int(number), int(attempt), exchange, client


def place_of(row: Mapping[str, Any]) -> tuple[str, int, int]:
    return row["federation_id"], row["round_number"], row["attempt"]
