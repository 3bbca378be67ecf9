"""Objectives over 30 days, and alerts on how fast their error budgets are spent.

Several windows, as in the SRE workbook: a long one, so that it matters, and a short one, so that
the alert ends soon after the trouble does.
"""

from collections.abc import Callable
from dataclasses import dataclass

from scripts.observability.rules import Alert, Record, Severity

PERIOD = "30d"


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """`bad` and `all_`: PromQL that counts, given a window, by `rate` or `increase`."""

    name: str
    target: float
    means: str
    bad: Callable[[str, str], str]
    all_: Callable[[str, str], str]

    @property
    def budget(self) -> float:
        return round(1 - self.target, 6)


def _summed(metric: str) -> Callable[[str, str], str]:
    return lambda function, window: f"sum({function}({metric}[{window}]))"


def _together(*parts: Callable[[str, str], str], sign: str = "+") -> Callable[[str, str], str]:
    return lambda function, window: (
        "(" + f" {sign} ".join(part(function, window) for part in parts) + ")"
    )


_FAILED, _COMPLETED = _summed("fl_rounds_failed_total"), _summed("fl_rounds_completed_total")
_DECLINED, _JOINED = _summed("fl_client_joins_failed_total"), _summed("fl_clients_joined_total")
_RECORDED = _summed("fl_artifact_availability_seconds_count")
_IN_TIME = _summed('fl_artifact_availability_seconds_bucket{le="30.0"}')

OBJECTIVES = (
    Objective(
        name="rounds",
        target=0.99,
        means="attempts at a round end with a checkpoint",
        bad=_FAILED,
        all_=_together(_FAILED, _COMPLETED),
    ),
    Objective(
        name="joins",
        target=0.95,
        means="joins succeed",
        bad=_DECLINED,
        all_=_together(_DECLINED, _JOINED),
    ),
    Objective(
        name="artifacts",
        target=0.99,
        means="artifacts are recorded within 30 s of their aggregate",
        bad=_together(_RECORDED, _IN_TIME, sign="-"),
        all_=_RECORDED,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Burn:
    """`factor`: times the speed at which the budget would last exactly for the period."""

    name: str
    factor: float
    long: str
    short: str
    severity: Severity
    spent: str


BURNS = (
    Burn(
        name="FlowerbedErrorBudgetBurnsFast", factor=14.4, long="1h", short="5m",
        severity="critical", spent="in two days",
    ),
    Burn(
        name="FlowerbedErrorBudgetBurns", factor=6, long="6h", short="30m",
        severity="warning", spent="in five days",
    ),
    Burn(
        name="FlowerbedErrorBudgetBurnsSlowly", factor=1, long="3d", short="6h",
        severity="info", spent="before the month is over",
    ),
)  # fmt: skip
LEAST_BAD = 2
"""A single failure on a quiet day spends no budget worth a person's night."""


def recorded(window: str) -> str:
    return f"flowerbed:slo_bad:ratio_rate{window}"


def _records(objective: Objective) -> tuple[Record, ...]:
    windows = dict.fromkeys([w for burn in BURNS for w in (burn.short, burn.long)] + [PERIOD])
    return tuple(
        Record(
            name=recorded(window),
            expr=f"{objective.bad('rate', window)} / {objective.all_('rate', window)}",
            labels={"slo": objective.name},
        )
        for window in windows
    )


def _alert(objective: Objective, burn: Burn) -> Alert:
    limit = f"{burn.factor * objective.budget:g}"
    of = f'{{slo="{objective.name}"}}'
    return Alert(
        name=burn.name,
        expr=(
            f"{recorded(burn.long)}{of} > {limit} and {recorded(burn.short)}{of} > {limit}"
            f" and on () {objective.bad('increase', burn.long)} > {LEAST_BAD}"
        ),
        severity=burn.severity,
        labels={"slo": objective.name},
        summary=f"The error budget of {objective.name} is spent {burn.spent}",
        description=(
            f"The objective is that {objective.target:.0%} of {objective.means}. Within"
            f" {burn.long}, {{{{ $value | humanizePercentage }}}} did not, and within"
            f" {burn.short} neither."
        ),
    )


def _rules(objective: Objective) -> list[Alert | Record]:
    return [*_records(objective), *(_alert(objective, burn) for burn in BURNS)]


RULES: tuple[Alert | Record, ...] = tuple(
    rule for objective in OBJECTIVES for rule in _rules(objective)
)
