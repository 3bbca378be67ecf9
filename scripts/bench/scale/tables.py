"""What was seen at each size, as Markdown tables."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from scripts.bench.scale.growth import Size

MIB = 1 << 20


def percentile(seconds: Sequence[float], share: float) -> float | None:
    """By nearest rank: with few samples the highest ones are the largest that were seen."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def milliseconds(seconds: Sequence[float], share: float) -> str:
    found = percentile(seconds, share)
    return "-" if found is None else f"{1000 * found:.1f}"


def row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    return "\n".join((row(*head), "|---" * len(head) + "|", *(row(*cells) for cells in rows)))


def tables(sizes: Sequence[Size]) -> Iterator[str]:
    grown = [size for size in sizes if size.runners]
    yield joining(grown)
    yield waiting_table(grown)
    yield processor(sizes)
    yield memory(sizes)


def joining(sizes: Sequence[Size]) -> str:
    head = (
        "runners", "invites/s", "p99, ms", "enrolments/s", "p50, ms", "p99, ms",
        "offer p50, s", "p99, s", "claim p50, ms", "p99, ms", "all hold a lease after, s",
    )  # fmt: skip
    rows = [
        (
            size.runners, f"{size.added / size.invited_in:.0f}", milliseconds(size.invites, 0.99),
            f"{size.added / size.enrolled_in:.0f}", milliseconds(size.enrolments, 0.5),
            milliseconds(size.enrolments, 0.99), *(
                f"{percentile(size.offers, share) or 0:.2f}" for share in (0.5, 0.99)
            ),
            milliseconds(size.claims, 0.5), milliseconds(size.claims, 0.99),
            f"{size.joined_in:.1f}",
        )
        for size in sizes
    ]  # fmt: skip
    return table(head, rows)


def waiting_table(sizes: Sequence[Size]) -> str:
    head = (
        "runners", "calls/s", "heartbeats", "p50, ms", "p99, ms", "most", "work poll late p50",
        "p99", "lease poll late p50", "p99", "generator late p99", "failed", "load",
    )  # fmt: skip
    rows = []
    for size in sizes:
        seconds = size.found.seconds
        beats, own = seconds.get("heartbeat", []), seconds.get("generator's own lag", [])
        rows.append(
            (
                size.runners, f"{size.answers / size.window:.0f}", len(beats),
                milliseconds(beats, 0.5), milliseconds(beats, 0.99), milliseconds(beats, 1),
                *(
                    milliseconds(seconds.get(f"{kind} poll, late", []), share)
                    for kind in ("work", "lease") for share in (0.5, 0.99)
                ),
                milliseconds(own, 0.99), sum(size.found.failed.values()), f"{size.load:.1f}",
            )
        )  # fmt: skip
    return table(head, rows)


def processor(sizes: Sequence[Size]) -> str:
    """Per cent of one core by process group, and what all of them spend on a runner's minute."""
    shares = [
        {name: 100 * seconds / size.window for name, seconds in size.used.items()} for size in sizes
    ]
    every = [sum(one.values()) for one in shares]
    rows = _by_process(shares, 0.1, 1)
    rows.append(("all of it", *(f"{one:.1f}" for one in every)))
    each = [
        f"{600 * one / size.runners:.1f}" if size.runners else "-"
        for one, size in zip(every, sizes, strict=True)
    ]
    rows.append(("ms per runner-minute", *each))
    own = (f"{100 * size.generator / size.window:.1f}" for size in sizes)
    rows.append(("beside it: the generator", *own))
    return table(("CPU, % of a core; runners:", *(str(size.runners) for size in sizes)), rows)


def memory(sizes: Sequence[Size]) -> str:
    """MiB by process group, and what each runner has added since the size before."""
    held = [{name: size.memory[name] / MIB for name in size.memory} for size in sizes]
    every = [sum(one.values()) for one in held]
    rows = _by_process(held, 1, 0)
    rows.append(("all of it", *(f"{one:.0f}" for one in every)))
    each = [
        f"{1024 * (after - before) / size.added:.0f}"
        for (before, after), size in zip(pairwise(every), sizes[1:], strict=True)
    ]
    rows.append(("KiB for each runner more", "-", *each))
    for name in ("python flowerbed.lease", "caddy"):
        opened = (str(size.files[name]) for size in sizes)
        rows.append((f"open files of {_short(name)}", *opened))
    return table(("PSS, MiB; runners:", *(str(size.runners) for size in sizes)), rows)


def _by_process(
    groups: Sequence[Mapping[str, float]], least: float, digits: int
) -> list[tuple[str, ...]]:
    """A row for each process group that matters at some size, the last size's largest first."""
    names = {name for group in groups for name in group}
    ordered = sorted(names, key=lambda name: -groups[-1].get(name, 0.0))
    return [
        (_short(name), *(f"{group.get(name, 0.0):.{digits}f}" for group in groups))
        for name in ordered
        if max(group.get(name, 0.0) for group in groups) >= least
    ]


def _short(name: str) -> str:
    return name.removeprefix("python flowerbed.")


def verdicts(sizes: Sequence[Size]) -> Iterator[str]:
    for size in sizes:
        beats = percentile(size.found.seconds.get("heartbeat", []), 0.99)
        if beats is not None:
            held_ = "yes" if beats < 0.1 else "NO"
            yield f"{size.runners} runners: p99 of a heartbeat below 100 ms: {held_}"
