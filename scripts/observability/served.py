"""What the services serve on /metrics, read from the modules that define it."""

from importlib import import_module
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

ROOT = Path(__file__).resolve().parents[2]
TARGET = frozenset({"job", "instance", "service", "replica"})
"""Labels that Prometheus adds, by its scrape configuration."""

_BY_LIBRARY = ("process_cpu_seconds_total", "process_resident_memory_bytes",
               "process_start_time_seconds", "up")  # fmt: skip


def served() -> dict[str, frozenset[str]]:
    """By the name of each series, the labels that it may have."""
    found = dict.fromkeys(_BY_LIBRARY, TARGET)
    for module in _modules():
        for metric in vars(import_module(module)).values():
            if isinstance(metric, MetricWrapperBase):
                found |= _series(metric)
    return found


def _modules() -> list[str]:
    """All that define some."""
    folders = [ROOT / "events" / "src", *sorted(ROOT.glob("services/*/src"))]
    return [
        ".".join(path.relative_to(folder).with_suffix("").parts)
        for folder in folders
        for path in sorted(folder.rglob("*.py"))
        if "from prometheus_client import" in path.read_text()
    ]


def _series(metric: MetricWrapperBase) -> dict[str, frozenset[str]]:
    name, labels = metric._name, TARGET | frozenset(metric._labelnames)
    match metric:
        case Counter():
            return {f"{name}_total": labels}
        case Histogram():
            return {
                f"{name}_bucket": labels | {"le"},
                f"{name}_count": labels,
                f"{name}_sum": labels,
            }
        case Gauge():
            return {name: labels}
        case _:
            raise ValueError(f"{name} is of a kind that nobody charts yet")
