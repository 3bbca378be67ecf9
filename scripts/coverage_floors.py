"""Print line coverage by part, and fail where a floor is missed.

The floors: 85 % of all lines, 95 % of events/ and of every decider.
"""

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

OVERALL, CORE = 85.0, 95.0
DECIDERS = {
    "orchestrator/decider.py", "orchestrator/evolve.py", "orchestrator/exchanges.py",
    "orchestrator/cohorts.py", "orchestrator/rounds.py", "orchestrator/steering.py",
    "lease/clients.py", "lease/leases.py", "aggregator/decider.py", "artifact/decider.py",
}  # fmt: skip

Counted = tuple[int, int]


def measured() -> dict[str, Counted]:
    """Covered and all lines, by file below the namespace, e.g. `lease/desk.py`."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, "-m", "coverage", "json", "-q", "-o", file.name]
        subprocess.run(command, check=True)
        files = json.loads(Path(file.name).read_text())["files"]
    found = {}
    for path, figures in files.items():
        summary = figures["summary"]
        name = path.partition("src/flowerbed/")[2]
        if name:
            found[name] = (summary["covered_lines"], summary["num_statements"])
    return found


def percent(counts: list[Counted]) -> float:
    lines = sum(n for _, n in counts)
    return 100.0 * sum(covered for covered, _ in counts) / lines if lines else 100.0


def main() -> int:
    files = measured()
    parts: dict[str, list[Counted]] = defaultdict(list)
    for name, counts in files.items():
        parts[name.split("/")[0]].append(counts)
    figures = {f"{part}/": (percent(counts), 0.0) for part, counts in sorted(parts.items())}
    figures["events/"] = (percent(parts["events"]), CORE)
    for name in sorted(DECIDERS):
        figures[name] = (percent([files[name]]), CORE)
    figures["all lines"] = (percent(list(files.values())), OVERALL)
    missed = [name for name, (share, floor) in figures.items() if share < floor]
    for name, (share, floor) in figures.items():
        told = f"  (at least {floor:.0f} %)" if floor else ""
        print(f"{name:<28} {share:6.1f} %{told}{'  MISSED' if name in missed else ''}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
