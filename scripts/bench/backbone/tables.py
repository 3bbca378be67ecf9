"""What was found, as Markdown."""

import statistics
from collections.abc import Mapping, Sequence

from scripts.bench.backbone.measures import OFF, ON, OURS, Found, Way


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(values: Sequence[float], form: str = ",.0f") -> str:
    """The median, and in brackets the least and the most."""
    least, most = format(min(values), form), format(max(values), form)
    return f"{statistics.median(values):{form}} ({least} to {most})"


def taken(found: Found, name: str, what: str) -> list[float]:
    return [one[what] for one in found[name]]


def ratios(mine: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Turn by turn."""
    return [one / other for one, other in zip(mine, theirs, strict=True)]


def rate_table(what: str, ways: Sequence[Way], found: Found) -> str:
    mine = taken(found, OURS, "rate")
    rows = []
    for way in ways:
        rates = taken(found, way.name, "rate")
        times = "1" if way.name == OURS else spread(ratios(mine, rates), ",.1f")
        wal = spread(taken(found, way.name, "wal"), ",.1f")
        rows.append([way.name, f"{way.count:,}", spread(rates), times, wal])
    header = [what, "events", "events/s", f"{OURS} is so many times faster", "WAL, bytes an event"]
    return markdown(header, rows)


def latency_table(by_rate: Mapping[int, Found]) -> str:
    rows = []
    for rate, found in by_rate.items():
        mine = taken(found, OURS, "p50")
        for name in found:
            p50 = taken(found, name, "p50")
            times = "1" if name == OURS else spread(ratios(p50, mine), ".1f")
            rows.append(
                [str(rate), name]
                + [spread(taken(found, name, part), ".1f") for part in ("p50", "p99")]
                + [times, spread(taken(found, name, "kept"))]
            )
    header = ["events/s", "chain", "p50, ms", "p99, ms", f"p50, times {OURS}'s", "kept, events/s"]
    return markdown(header, rows)


def writers_table(found: Found) -> str:
    on, off = taken(found, ON, "rate"), taken(found, OFF, "rate")
    rows = [
        [ON, spread(on), spread(ratios(on, off), ".2f")],
        [OFF, spread(off), "1"],
    ]
    return markdown(["writers", "commits/s", f"ratio to {OFF}"], rows)
