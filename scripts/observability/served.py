"""The series that Prometheus has of the services, and the labels that each may have."""

from functools import cache

from scripts.metric_catalogue import catalogue

TARGET = frozenset({"job", "instance", "service", "replica"})
"""Labels that Prometheus adds, by its scrape configuration."""

_OF_EVERY_TARGET = (
    "process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds",
    "up",
)  # fmt: skip


@cache
def served() -> dict[str, frozenset[str]]:
    found = dict.fromkeys(_OF_EVERY_TARGET, TARGET)
    for metric in catalogue():
        labels = TARGET | frozenset(metric.labels)
        if metric.type == "histogram":
            found[f"{metric.name}_bucket"] = labels | {"le"}
            found |= {f"{metric.name}_{part}": labels for part in ("count", "sum")}
        else:
            found[metric.name] = labels
    return found
