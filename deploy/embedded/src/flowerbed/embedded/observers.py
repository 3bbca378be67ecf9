"""Prometheus, which asks the services and judges the alert rules, and Alertmanager, which tells.

Neither comes with us: they are started where the machine has them.
"""

import json
import shutil
from collections.abc import Callable
from importlib.resources import files

from flowerbed.contracts.topology import SERVICES
from flowerbed.embedded import probes
from flowerbed.embedded.child import ChildSpec
from flowerbed.embedded.errors import BadInput
from flowerbed.embedded.layout import write_private, write_private_json
from flowerbed.embedded.listening import listens
from flowerbed.embedded.probes import NotReady
from flowerbed.embedded.setup import Setup

OBSERVERS = ("prometheus", "alertmanager")
_PROGRAMS = {
    "prometheus": ("prometheus",),
    "alertmanager": ("prometheus-alertmanager", "alertmanager"),
}
"""What they are called on a Debian machine, and elsewhere."""

SCRAPE_SECONDS = 15
RETENTION = ("31d", "2GB")
"""The objectives' 30 days; what is older, or more, is deleted."""


def refuse_missing() -> None:
    """Raises: BadInput: there is no Prometheus; says how to get it."""
    if _program("prometheus") is None:
        raise BadInput(
            "Prometheus is not installed: `apt-get install prometheus prometheus-alertmanager` on"
            " Debian and Ubuntu, or put `prometheus` and `alertmanager` into the PATH;"
            " `flowerbed up --no-observability` starts without it"
        )


def observer_specs(setup: Setup) -> tuple[ChildSpec, ...]:
    """Of those that the stack wants and the machine has."""
    if not setup.shape.observability:
        return ()
    refuse_missing()
    if _program("alertmanager") is None:
        return (_prometheus(setup),)
    return _alertmanager(setup), _prometheus(setup)


def scrape_config(setup: Setup) -> dict[str, object]:
    """A target a replica, at the ports that it has now."""
    targets = [
        {
            "targets": [setup.address(replica)],
            "labels": {"service": service, "replica": replica},
        }
        for service in SERVICES
        for replica in setup.replicas(service)
    ]
    told = [{"static_configs": [{"targets": [setup.address("alertmanager")]}]}]
    return {
        "global": {
            "scrape_interval": f"{SCRAPE_SECONDS}s",
            "evaluation_interval": f"{SCRAPE_SECONDS}s",
        },
        "rule_files": [str(setup.layout.run / "alerts.yaml")],
        "alerting": {"alertmanagers": told if _program("alertmanager") else []},
        "scrape_configs": [
            # A metric's own `service` is the target's.
            {"job_name": "flowerbed", "honor_labels": True, "static_configs": targets}
        ],
    }


def _prometheus(setup: Setup) -> ChildSpec:
    run, (days, size) = setup.layout.run, RETENTION
    write_private(run / "alerts.yaml", (files(__package__) / "alerts.yaml").read_text())
    write_private_json(run / "prometheus.yml", scrape_config(setup))  # JSON is YAML
    return _spec(
        setup,
        "prometheus",
        f"--config.file={run / 'prometheus.yml'}",
        f"--storage.tsdb.path={setup.layout.root / 'prometheus'}",
        f"--storage.tsdb.retention.time={days}",
        f"--storage.tsdb.retention.size={size}",
        "--enable-feature=exemplar-storage",
    )


def _alertmanager(setup: Setup) -> ChildSpec:
    """By the operator's own file where there is one; else alerts are kept and nobody is told."""
    own, run = setup.layout.secrets / "alertmanager.yml", setup.layout.run
    configuration = own if own.exists() else run / "alertmanager.yml"
    if not own.exists():
        nobody = {"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]}
        write_private_json(configuration, nobody)
    return _spec(
        setup,
        "alertmanager",
        f"--config.file={configuration}",
        f"--storage.path={setup.layout.root / 'alertmanager'}",
        "--cluster.listen-address=",  # it is alone
    )


def _spec(setup: Setup, name: str, *options: str) -> ChildSpec:
    directory = setup.layout.root / name
    directory.mkdir(mode=0o700, exist_ok=True)
    address = setup.address(name)
    return ChildSpec(
        name=name,
        kind="server",
        argv=(str(_program(name)), *options, f"--web.listen-address={address}"),
        address=f"http://{address}",
        probe=_probe(setup.ports[name]),
        log=setup.layout.log(name),
        directory=directory,
        env=setup.server_env(),
    )


def _probe(port: int) -> Callable[[int], None]:
    def probe(pid: int) -> None:
        if not listens(pid, port):
            raise NotReady(f"does not listen on port {port} yet")
        is_ready(port)

    return probe


def is_ready(port: int) -> None:
    status, _ = probes.http_status(port, "/-/ready")
    if status != 200:
        raise NotReady(f"/-/ready answers {status}")


def n_firing(port: int) -> int:
    """How many alerts Prometheus says are firing."""
    _, body = probes.http_status(port, "/api/v1/alerts")
    alerts = json.loads(body)["data"]["alerts"]
    return sum(1 for alert in alerts if alert["state"] == "firing")


def _program(name: str) -> str | None:
    return next(filter(None, map(shutil.which, _PROGRAMS[name])), None)
