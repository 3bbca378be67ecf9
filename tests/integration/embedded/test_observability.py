"""`up` with observability: Prometheus and Alertmanager are the stack's own, while it runs."""

import json
import shutil
import signal
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from typer.main import get_command

from flowerbed.cli import main as cli
from flowerbed.contracts.topology import SERVICES
from flowerbed.embedded.control import down, up
from flowerbed.embedded.errors import BadInput
from flowerbed.embedded.stack import Stack
from tests.integration.embedded.observing import component, eventually, process, processes

pytestmark = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("prometheus-alertmanager")),
    reason="not installed (Debian: apt-get install prometheus prometheus-alertmanager)",
)


def targets(stack: Stack) -> set[str]:
    """The replicas that Prometheus asks."""
    found = httpx.get(f"{stack.prometheus_url}/api/v1/targets").json()["data"]["activeTargets"]
    return {one["labels"]["replica"] for one in found}


def alertmanagers(stack: Stack) -> list[str]:
    found = httpx.get(f"{stack.prometheus_url}/api/v1/alertmanagers").json()["data"]
    return [one["url"] for one in found["activeAlertmanagers"]]


def test_they_are_supervised_and_scrape_the_stack(state_dir: Path) -> None:
    stack = up(state_dir, services=("artifact",), observability=True)

    eventually(lambda: targets(stack) == set(SERVICES), 30)  # each that there can be
    rules = httpx.get(f"{stack.prometheus_url}/api/v1/rules").json()["data"]["groups"]
    assert {group["name"] for group in rules} >= {"flowerbed-federations", "flowerbed-objectives"}
    told = f"http://127.0.0.1:{stack.port('alertmanager')}/api/v2/alerts"
    eventually(lambda: alertmanagers(stack) == [told], 30)

    first = process(stack, "prometheus")
    first.signal(signal.SIGKILL)
    eventually(lambda: component(stack, "prometheus").process not in (None, first), 30)
    eventually(lambda: _ready(stack, "prometheus"), 30)
    with pytest.raises(BadInput, match="runs with --observability True, not False; end it first"):
        up(state_dir, observability=False)

    running = processes(stack)
    down(state_dir)
    assert not [one for one in running if one.is_alive()]


def _ready(stack: Stack, name: str) -> bool:
    arguments = ["status", "--output", "json", "--state-dir", str(stack.state_dir)]
    found = json.loads(CliRunner().invoke(get_command(cli.app), arguments).output)
    return any(one["name"] == name and one["ready"] for one in found["components"])
