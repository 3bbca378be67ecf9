"""A service of ours under the supervisor: its settings, and what is asked of it."""

import json

import pytest

from flowerbed.embedded.listening import listens
from flowerbed.embedded.stack import Stack
from tests.integration.embedded.observing import component, eventually, process, status

SERVICE = "artifact"


@pytest.fixture
def served(servers: Stack) -> Stack:
    """Other tests kill its servers; it needs a moment to find them again."""
    eventually(lambda: (found := status(servers, SERVICE)) is not None and found.ready)
    return servers


def test_service_listens_where_its_settings_say(served: Stack) -> None:
    settings = json.loads(served.layout.settings(SERVICE).read_text())

    assert settings["http_port"] == served.port(SERVICE)
    assert listens(process(served, SERVICE).pid, served.port(SERVICE))
    assert component(served, SERVICE).address == served.service_url(SERVICE)


def test_status_tells_its_lags(served: Stack) -> None:
    found = status(served, SERVICE)
    assert found is not None
    assert found.lags.keys() >= {"outbox"}


def test_only_services_that_were_asked_for_run(served: Stack) -> None:
    assert status(served, "gateway") is None
