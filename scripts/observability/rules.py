"""Rules in Prometheus' format: alerts with their words, and recorded series."""

from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["critical", "warning", "info"]
RUNBOOKS = "docs/runbooks.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """`wait`: how long `expr` must hold. `summary` fits on a phone, `description` says the rest."""

    name: str
    expr: str
    severity: Severity
    summary: str
    description: str
    wait: str = "0m"
    labels: dict[str, str] = field(default_factory=dict)

    def rule(self) -> dict[str, Any]:
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.wait,
            "labels": {"severity": self.severity, **self.labels},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{RUNBOOKS}#{self.name.lower()}",
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    name: str
    expr: str
    labels: dict[str, str]

    def rule(self) -> dict[str, Any]:
        return {"record": self.name, "expr": self.expr, "labels": self.labels}


def group(name: str, rules: "tuple[Alert | Record, ...]") -> dict[str, Any]:
    return {"name": f"flowerbed-{name}", "rules": [one.rule() for one in rules]}
