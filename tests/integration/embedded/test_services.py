"""A service of ours under the supervisor: settings, readiness, death, stop."""

import json
import signal
import stat
from pathlib import Path

from flowerbed.embedded.control import down, up
from flowerbed.embedded.credentials import read_credentials
from flowerbed.embedded.stack import Stack
from tests.integration.embedded.observing import (
    command_and_environment,
    component,
    eventually,
    processes,
    record,
    status,
)


def is_ready(stack: Stack, name: str) -> bool:
    found = status(stack, name)
    return found is not None and found.ready


def test_service_is_run_watched_and_stopped(state_dir: Path) -> None:
    stack = up(state_dir, services=("lease",))
    before = component(stack, "lease")
    assert before.process is not None

    found = status(stack, "lease")
    assert found is not None
    assert found.ready
    assert found.lags["outbox"] == 0
    settings = stack.layout.settings("lease")
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600
    assert json.loads(settings.read_text())["http_port"] == stack.port("lease")

    before.process.signal(signal.SIGKILL)
    eventually(lambda: component(stack, "lease").restarts == 1)
    eventually(lambda: is_ready(stack, "lease"))

    secrets = [value.encode() for value in read_credentials(stack.layout).values()]
    running = processes(stack)
    for item in running:
        text = command_and_environment(item.pid)
        assert not [value for value in secrets if value in text]
    down(state_dir)

    assert not [item for item in running if item.is_alive()]
    for log in stack.layout.logs.iterdir():
        assert not [value for value in secrets if value in log.read_bytes()]
    assert record(stack).state == "stopped"
