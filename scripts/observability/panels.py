"""What a dashboard shows, as data; `grafana.py` makes it Grafana's."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["number", "lines", "text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One panel. `of`: PromQL and the legend of its series. `says`: what to make of it, in a
    sentence; for a text, all of it. `unit`: Grafana's name. `bad_from`: shown red from there on.
    """

    title: str
    says: str
    of: tuple[tuple[str, str], ...] = ()
    kind: Kind = "lines"
    unit: str = "short"
    width: int = 12
    bad_from: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """`rows`: title and panels. Its file and its address in Grafana are `flowerbed-<name>`."""

    name: str
    title: str
    says: str
    rows: tuple[tuple[str, tuple[Shown, ...]], ...]


def number(title: str, expr: str, says: str, unit: str = "short", **more: float) -> Shown:
    """A single figure; `bad_from` in `more`."""
    return Shown(
        title=title,
        says=says,
        of=((expr, ""),),
        kind="number",
        unit=unit,
        width=6,
        bad_from=more.get("bad_from"),
    )


def lines(title: str, *of: tuple[str, str], says: str, unit: str = "short") -> Shown:
    return Shown(title=title, says=says, of=of, unit=unit)


def text(title: str, says: str) -> Shown:
    return Shown(title=title, says=says, kind="text", width=24)
