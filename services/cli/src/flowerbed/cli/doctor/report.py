"""Findings, and how they are told: ok, warning or failed; what was seen; what to do."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

import typer

from flowerbed.cli.calling import call
from flowerbed.cli.output import FAILED, coloured, print_json


class Level(StrEnum):
    ok = "ok"
    warning = "warning"
    failed = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """`do`: what a person does about it, where there is something to do."""

    check: str
    level: Level
    seen: str
    do: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """`look` answers its findings; it changes nothing."""

    name: str
    look: Callable[[], Iterable[Finding]]

    def findings(self) -> list[Finding]:
        try:
            return list(self.look())
        except Exception as error:  # a check that fails must not hide what the others find
            seen = f"the check itself did not end: {type(error).__name__}: {error}"
            return [Finding(self.name, Level.failed, seen, "report this line")]


_COLOURS = {Level.ok: "green", Level.warning: "yellow", Level.failed: "red"}


def ok(check: str, seen: str) -> Finding:
    return Finding(check, Level.ok, seen)


def warning(check: str, seen: str, do: str) -> Finding:
    return Finding(check, Level.warning, seen, do)


def failed(check: str, seen: str, do: str) -> Finding:
    return Finding(check, Level.failed, seen, do)


def examine(checks: Sequence[Check]) -> None:
    """Tell each finding as it comes; exit code 1 if something has failed."""
    findings: list[Finding] = []
    for check in checks:
        for finding in check.findings():
            findings.append(finding)
            if not call().as_json:
                _tell(finding)
    counts = {level: sum(one.level is level for one in findings) for level in Level}
    if call().as_json:
        print_json(
            {
                "is_ok": not counts[Level.failed],
                "counts": {level.value: count for level, count in counts.items()},
                "findings": [asdict(one) for one in findings],
            }
        )
    else:
        typer.echo(", ".join(f"{count} {level.value}" for level, count in counts.items()))
    if counts[Level.failed]:
        raise typer.Exit(FAILED)


def _tell(finding: Finding) -> None:
    level = coloured(f"{finding.level.value:<8}", _COLOURS[finding.level])
    typer.echo(f"{level} {finding.check:<13} {finding.seen}")
    if finding.do:
        typer.echo(f"{'':<22} do: {finding.do}")
