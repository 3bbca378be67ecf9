"""Every expression in the rules and dashboards, and what each asks of which metric."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser as promql
import yaml

_VARIABLES = {"$__rate_interval": "1m", "$__range": "1h"}
"""What Grafana puts in their place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A series that an expression reads. `labels`: those that it selects, or groups by."""

    metric: str
    labels: frozenset[str]


def of_rules(path: Path) -> Iterator[tuple[str, str]]:
    """Where it stands, and the expression."""
    for group in yaml.safe_load(path.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule.get("alert") or f"{rule['record']} {rule['labels']}", rule["expr"]


def of_dashboards(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.glob("*.json")):
        for panel in _panels(json.loads(path.read_text())):
            for target in panel.get("targets", ()):
                expr: str = target["expr"]
                for name, value in _VARIABLES.items():
                    expr = expr.replace(name, value)
                yield f"{path.stem}: {panel['title']}", expr


def _panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", ())


def asked(expr: str) -> list[Asked]:
    """Raises: ValueError: it is no PromQL."""
    return list(_walk(promql.parse(expr), frozenset()))


def _walk(node: Any, grouped: frozenset[str]) -> Iterator[Asked]:
    match node:
        case promql.VectorSelector():
            matched = {matcher.name for matcher in node.matchers.matchers}
            yield Asked(metric=node.name or "", labels=grouped | matched)
        case promql.MatrixSelector():
            yield from _walk(node.vector_selector, grouped)
        case promql.AggregateExpr():
            by = node.modifier.labels if node.modifier is not None else ()
            yield from _walk(node.expr, grouped | frozenset(by))
        case promql.BinaryExpr():
            yield from _walk(node.lhs, grouped)
            yield from _walk(node.rhs, grouped)
        case promql.Call():
            for argument in node.args:
                yield from _walk(argument, grouped)
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            yield from _walk(node.expr, grouped)
