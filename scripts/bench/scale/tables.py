"""What was seen at each size, as Markdown tables."""

from collections.abc import Iterator, Mapping, Sequence

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
    """Per cent of one core, and milliseconds of all processes for a runner's minute."""
    names = _names([size.used for size in sizes], 0.05)
    rows = []
    for size in sizes:
        shares = [100 * size.used.get(name, 0.0) / size.window for name in names]
        everything = sum(size.used.values())
        each = 60_000 * everything / size.window / size.runners if size.runners else 0.0
        rows.append(
            (
                size.runners, *(f"{share:.1f}" for share in shares),
                f"{100 * everything / size.window:.1f}", f"{each:.1f}",
                f"{100 * size.generator / size.window:.1f}",
            )
        )  # fmt: skip
    head = ("runners", *(f"{name}, %" for name in names), "all, %", "ms per runner-minute")
    return table((*head, "generator, %"), rows)


def memory(sizes: Sequence[Size]) -> str:
    """MiB by process group, and what each runner has added since the size before."""
    names = _names([size.memory for size in sizes], MIB)
    rows = []
    before = None
    for size in sizes:
        total = sum(size.memory.values())
        grown = None if before is None else total - sum(before.memory.values())
        each = "-" if grown is None else f"{grown / size.added / 1024:.0f}"
        files = (size.files["python flowerbed.lease"], size.files["caddy"])
        shown = (f"{size.memory[name] / MIB:.0f}" for name in names)
        rows.append((size.runners, *shown, f"{total / MIB:.0f}", each, *files))
        before = size
    head = ("runners", *(f"{name}, MiB" for name in names), "all, MiB", "KiB per runner")
    return table((*head, "open files: lease", "caddy"), rows)


def _names(groups: Sequence[Mapping[str, float]], least: float) -> list[str]:
    """Process groups that matter at some size, the largest of the last size first."""
    most = {name: max(one.get(name, 0) for one in groups) for group in groups for name in group}
    last = groups[-1]
    return sorted((n for n in most if most[n] >= least), key=lambda n: -last.get(n, 0))


def verdicts(sizes: Sequence[Size]) -> Iterator[str]:
    for size in sizes:
        beats = percentile(size.found.seconds.get("heartbeat", []), 0.99)
        if beats is not None:
            held_ = "yes" if beats < 0.1 else "NO"
            yield f"{size.runners} runners: p99 of a heartbeat below 100 ms: {held_}"
