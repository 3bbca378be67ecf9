"""Tables for people, JSON for programs (`--output`)."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

if TYPE_CHECKING:
    from rich.console import Console


class Format(StrEnum):
    table = "table"
    json = "json"


Output: TypeAlias = Annotated[
    Format, typer.Option("--output", "-o", help="`table` for people, `json` for programs.")
]


def console(*, stderr: bool = False) -> "Console":
    """A pipe has no width: its lines are not cut."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 400
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=not stream.isatty())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Drawn on a terminal; elsewhere lines that are no longer than what they say."""
    if sys.stdout.isatty():
        console().print(_table(columns, rows))
    else:
        for line in plain_table(columns, rows):
            typer.echo(line)


def plain_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Columns as wide as their widest cell, two spaces apart; an empty cell is `-`, but for one in
    a column without a name."""
    shown_rows = [
        [one_line(shown(cell)) or "-"[: len(name)] for name, cell in zip(columns, row, strict=True)]
        for row in rows
    ]
    lines = [list(columns), *shown_rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def one_line(text: str, most: int | None = None) -> str:
    """Without line breaks, cut where that is asked for."""
    text = " ".join(text.split())
    return text if most is None or len(text) <= most else f"{text[: most - 1]}…"


def problems_table(problems: Iterable[Mapping[str, Any]]) -> None:
    """Broken rules, on stderr."""
    rows = [
        (problem.get("path") or "(document)", problem.get("value"), problem.get("allowed"))
        for problem in problems
    ]
    console(stderr=True).print(_table(("where", "found", "allowed"), rows))


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(shown(cell)) for cell in row))
    return table


def shown(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4f}"
        case list() | tuple():
            return ", ".join(shown(item) for item in value)
        case _:
            return str(value)


def short(sha256: str | None) -> str:
    return "" if sha256 is None else sha256[:12]


def moment(text: str | None) -> str:
    """A timestamp in the reader's own time zone."""
    if text is None:
        return ""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")
