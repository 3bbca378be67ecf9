"""Tokens and energy of an exchange, from what its sites have measured; nothing is estimated.

A figure that no site of the exchange can give is no sample at all, and never a zero.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prometheus_client import Gauge

from flowerbed.aggregator import metrics
from flowerbed.contracts.update import UpdateSubmitted
from flowerbed.events.connection import Connection

NOT_REPORTED = "not-reported"
"""Of an agent that does not know how to measure."""

_REPORTED = """
SELECT answer FROM submissions WHERE work_id = ANY ($1) AND type = $2
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Over an exchange's accepted updates; None where no site could say."""

    tokens: int | None
    tokens_per_second: float | None
    joules: float | None
    watts: float | None
    watts_per_token: float | None
    unmeasured: Counter[str]


def totals(reports: Iterable[UpdateSubmitted]) -> Totals:
    """Rates are of each client over its own time in the app, added up."""
    known = list(reports)
    timed = [one for one in known if one.train_seconds > 0]
    counted = [one for one in timed if one.n_tokens]
    metered = [one for one in timed if one.joules is not None]
    both = [one for one in counted if one.joules is not None]
    tokens_of_both = sum(one.n_tokens or 0 for one in both)
    return Totals(
        tokens=_count([one.n_tokens for one in known if one.n_tokens is not None]),
        tokens_per_second=_sum([(one.n_tokens or 0) / one.train_seconds for one in counted]),
        joules=_sum([one.joules for one in known if one.joules is not None]),
        watts=_sum([(one.joules or 0) / one.train_seconds for one in metered]),
        watts_per_token=sum(one.joules or 0 for one in both) / tokens_of_both if both else None,
        unmeasured=Counter(
            one.joules_reason or NOT_REPORTED for one in known if one.joules is None
        ),
    )


def show(found: Totals, tenant: str, exchange: str) -> None:
    """As metrics of the tenant's last exchange of that kind."""
    label = metrics.tenants(tenant)
    _set(metrics.tokens_per_second, (label, exchange), found.tokens_per_second)
    _set(metrics.power, (label, exchange), found.watts)
    _set(metrics.watts_per_token, (label, exchange), found.watts_per_token)
    _set(metrics.round_joules, (label, exchange), found.joules)
    if found.tokens is not None:
        metrics.tokens.labels(label).inc(found.tokens)
    if found.joules is not None:
        metrics.joules.labels(label).inc(found.joules)
    for reason, count in found.unmeasured.items():
        metrics.unmeasured.labels(metrics.reasons(reason)).inc(count)


async def reported(connection: Connection, works: Sequence[str]) -> list[UpdateSubmitted]:
    rows = await connection.fetch(_REPORTED, list(works), UpdateSubmitted.type)
    return [UpdateSubmitted.model_validate_json(row["answer"]) for row in rows]


def _count(values: Sequence[int]) -> int | None:
    return sum(values) if values else None


def _sum(values: Sequence[float]) -> float | None:
    return sum(values) if values else None


def _set(gauge: Gauge, labels: tuple[str, str], value: float | None) -> None:
    if value is None:
        gauge.remove(*labels)
    else:
        gauge.labels(*labels).set(value)
