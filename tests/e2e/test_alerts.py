"""Debian's Prometheus and Alertmanager watch a live stack: a federation that stalls is told of."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from flowerbed.contracts.topology import SERVICES
from flowerbed.embedded.observers import scrape_config
from flowerbed.embedded.setup import Setup
from tests.e2e.documents import hospital
from tests.support.field import Field, until
from tests.support.servers import end, free_port

ALERTMANAGER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
PROMETHEUS = shutil.which("prometheus")
ALERTS = Path(__file__).resolve().parents[2] / "deploy" / "observability" / "alerts.yaml"
STALLED = "FlowerbedFederationWithoutProgress"

pytestmark = pytest.mark.skipif(
    PROMETHEUS is None or ALERTMANAGER is None,
    reason="not installed (Debian: apt-get install prometheus prometheus-alertmanager)",
)


@dataclass(frozen=True)
class Watch:
    prometheus: str
    alertmanager: str

    def active(self, tenant: str) -> list[dict[str, Any]]:
        """What Alertmanager has of it."""
        found = httpx.get(f"{self.alertmanager}/api/v2/alerts").json()
        return [one for one in found if one["labels"].get("tenant") == tenant]

    def query(self, expr: str) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self.prometheus}/api/v1/query", params={"query": expr}).json()
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found


def impatient(rules: str) -> str:
    """The rules as they are, but for how long something must last."""
    found = yaml.safe_load(rules)
    for group in found["groups"]:
        group["interval"] = "1s"
        for rule in group["rules"]:
            if "alert" in rule:
                rule["for"] = "0s"
                rule["expr"] = rule["expr"].replace("> 900", "> 3")
    return yaml.safe_dump(found)


@pytest.fixture
def watch(bare_field: Field, tmp_path: Path) -> Iterator[Watch]:
    assert PROMETHEUS is not None and ALERTMANAGER is not None
    told, asked = free_port(), free_port()
    nobody = {
        "route": {"receiver": "nobody", "group_wait": "0s", "group_interval": "1s"},
        "receivers": [{"name": "nobody"}],
    }
    (tmp_path / "alertmanager.yml").write_text(json.dumps(nobody))
    (tmp_path / "alerts.yaml").write_text(impatient(ALERTS.read_text()))
    config: Any = scrape_config(_setup(bare_field))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(tmp_path / "alerts.yaml")]
    targets = [{"static_configs": [{"targets": [f"127.0.0.1:{told}"]}]}]
    config["alerting"] = {"alertmanagers": targets}
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))
    commands = (
        [
            ALERTMANAGER, f"--config.file={tmp_path / 'alertmanager.yml'}",
            f"--storage.path={tmp_path / 'alertmanager'}", "--cluster.listen-address=",
            f"--web.listen-address=127.0.0.1:{told}",
        ],
        [
            PROMETHEUS, f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{asked}",
        ],
    )  # fmt: skip
    with (tmp_path / "log").open("w") as log:
        started = [
            subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path) for command in commands
        ]
        try:
            for port in (told, asked):
                until(lambda port=port: _is_ready(port), f"{port} is ready", 20)  # type: ignore[misc]
            yield Watch(f"http://127.0.0.1:{asked}", f"http://127.0.0.1:{told}")
        finally:
            for process in started:
                end(process)


def test_an_alert_fires_when_a_federation_stalls_and_ends_with_it(
    bare_field: Field, watch: Watch
) -> None:
    document = hospital()
    document["metadata"]["tenant"] = "stalled"  # nobody is enrolled there
    federation = bare_field.submit(document)

    (fired,) = until(lambda: watch.active("stalled"), "the alert arrives", 40)

    assert fired["labels"]["alertname"] == STALLED and fired["labels"]["severity"] == "warning"
    assert fired["annotations"]["summary"] == "A federation of tenant stalled stands still"
    assert fired["annotations"]["runbook_url"].startswith("docs/runbooks.md#")
    seen = f'ALERTS{{alertname="{STALLED}",tenant="stalled",alertstate="firing"}}'
    assert watch.query(seen)
    up = 'up{job="flowerbed"} == 1'
    until(lambda: len(watch.query(up)) == len(SERVICES), "every service is asked, and answers", 20)

    bare_field.api.post(f"/federations/{federation}/cancel")
    until(lambda: not watch.query(seen), "it fires no more", 30)


def _setup(field: Field) -> Setup:
    """Of the running stack; only its own alertmanager's port is made up."""
    setup = Setup.of_running(field.stack.layout)
    ports = {**setup.ports, "alertmanager": 0}
    return Setup(setup.layout, setup.credentials, ports, setup.shape)


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/-/ready").status_code == 200
    except httpx.TransportError:
        return False
