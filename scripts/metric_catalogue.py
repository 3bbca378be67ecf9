"""Every Prometheus metric that the services expose, read from their code: name, type, labels.

    python -m scripts.metric_catalogue [--output table|json]

Each service's module is loaded in a process of its own, and its registry is asked what it holds.
Names are as a scrape has them, with `_total` for counters.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from flowerbed.contracts.topology import SERVICES

OF_THE_LIBRARY = ("python_", "process_")
"""What prometheus_client says of any Python process."""

_LOOK = """
import importlib, json, sys
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase
importlib.import_module(f"flowerbed.{sys.argv[1]}.__main__")
found = [
    {"name": one._name, "type": one._type, "labels": list(one._labelnames),
     "help": one._documentation}
    for one in REGISTRY._collector_to_names if isinstance(one, MetricWrapperBase)
]
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """`services`: those whose /metrics has it."""

    name: str
    type: str
    labels: tuple[str, ...]
    help: str
    services: tuple[str, ...]


def catalogue(services: Sequence[str] = SERVICES) -> list[Metric]:
    """Sorted by name."""
    running = {service: _look(service) for service in services}
    found: dict[str, Metric] = {}
    for service, process in running.items():
        told, _ = process.communicate(timeout=120)
        if process.returncode != 0:
            raise RuntimeError(f"{service} cannot be asked")
        for one in json.loads(told):
            name = f"{one['name']}_total" if one["type"] == "counter" else one["name"]
            if name.startswith(OF_THE_LIBRARY):
                continue
            known = found[name].services if name in found else ()
            found[name] = Metric(
                name=name,
                type=one["type"],
                labels=tuple(one["labels"]),
                help=one["help"],
                services=(*known, service),
            )
    return [found[name] for name in sorted(found)]


def _look(service: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", _LOOK, service]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Every metric that the services expose.")
    parser.add_argument("--output", choices=("table", "json"), default="table")
    chosen = parser.parse_args(arguments)
    found = catalogue()
    if chosen.output == "json":
        print(json.dumps([asdict(one) for one in found], indent=2))
        return 0
    for one in found:
        print(f"{one.name:34} {one.type:10} {', '.join(one.labels):22} {', '.join(one.services)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
