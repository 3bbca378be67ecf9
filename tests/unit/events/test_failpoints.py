"""A failpoint ends the process that reaches it, once, and only where it was armed."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowerbed.events import failpoints


@pytest.fixture
def armed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A process of the lease service whose failpoint file is not there yet."""
    settings, file = tmp_path / "lease.json", tmp_path / "failpoint.json"
    settings.write_text('{"service": "lease"}')
    monkeypatch.setenv("FLOWERBED_SETTINGS_FILE", str(settings))
    monkeypatch.setattr(failpoints, "_file", str(file))
    failpoints._service.cache_clear()
    yield file
    failpoints._service.cache_clear()


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sent: list[int] = []
    monkeypatch.setattr("os.kill", lambda pid, number: sent.append(number))
    return sent


def arm(file: Path, **changes: str) -> None:
    point = {
        "service": "lease", "point": "publish-before", "event_type": "fl.client.joined", "id": "1",
    }  # fmt: skip
    file.write_text(json.dumps(point | changes))


def test_the_armed_point_kills_once(armed: Path, killed: list[int]) -> None:
    arm(armed)
    failpoints.reach("publish-before", "fl.client.dropped", "fl.client.joined")
    failpoints.reach("publish-before", "fl.client.joined")
    assert killed == [signal.SIGKILL]
    assert not armed.exists()


def test_a_point_may_stop_instead(armed: Path, killed: list[int]) -> None:
    arm(armed, signal="SIGSTOP")
    failpoints.reach("publish-before", "fl.client.joined")
    assert killed == [signal.SIGSTOP]


@pytest.mark.parametrize(
    "other",
    [{"service": "artifact"}, {"point": "publish-after"}, {"event_type": "fl.client.dropped"}],
)
def test_another_service_point_or_type_is_left_alone(
    armed: Path, killed: list[int], other: dict[str, str]
) -> None:
    arm(armed, **other)
    failpoints.reach("publish-before", "fl.client.joined")
    assert killed == []
    assert armed.exists()


def test_nothing_is_looked_at_without_the_variable(
    armed: Path, killed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    arm(armed)
    monkeypatch.setattr(failpoints, "_file", None)
    failpoints.reach("publish-before", "fl.client.joined")
    failpoints.reach_commit(["fl.client.joined"])
    assert killed == []
