"""Settings come from one private file and the environment, and nowhere else."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from pydantic_settings import SettingsConfigDict

from flowerbed.events.settings import ServiceSettings

FILE = {
    "service": "lease", "database_host": "127.0.0.1", "database_port": 5432,
    "database_name": "lease", "database_user": "lease_app", "database_password": "app-secret",
    "reader_user": "lease_reader", "reader_password": "reader-secret",
    "nats_url": "nats://127.0.0.1:4222", "nats_user": "lease", "nats_password": "nats-secret",
    "http_port": 8001, "internal_token": "token-secret",
}  # fmt: skip


class LeaseSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="FLOWERBED_LEASE_")

    client_socket: Path = Path("/run/door.sock")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "lease.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(FILE))
    monkeypatch.setenv("FLOWERBED_SETTINGS_FILE", str(path))
    return path


def test_settings_are_read_from_the_file(file: Path) -> None:
    settings = LeaseSettings.load()
    assert settings.database_password.get_secret_value() == "app-secret"
    assert settings.http_host == "127.0.0.1"
    assert "secret" not in repr(settings)


def test_environment_wins_over_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWERBED_LEASE_HTTP_PORT", "9999")
    monkeypatch.setenv("FLOWERBED_LEASE_CLIENT_SOCKET", "/tmp/other.sock")
    settings = LeaseSettings.load()
    assert (settings.http_port, settings.client_socket) == (9999, Path("/tmp/other.sock"))


def test_file_that_others_may_read_is_refused(file: Path) -> None:
    file.chmod(0o640)
    with pytest.raises(PermissionError, match="mode 0640, not 0600"):
        LeaseSettings.load()


def test_setting_nobody_knows_is_an_error(file: Path) -> None:
    file.write_text(json.dumps(FILE | {"htpp_port": 1}))
    with pytest.raises(ValidationError, match="htpp_port"):
        LeaseSettings.load()


def test_missing_settings_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOWERBED_SETTINGS_FILE", raising=False)
    with pytest.raises(ValidationError, match="database_password"):
        LeaseSettings.load()


def test_settings_do_not_change(file: Path) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        LeaseSettings.load().http_port = 1  # type: ignore[misc]


def test_allowed_origins_are_written_with_commas(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LeaseSettings.load().otlp_allowed == ()
    file.write_text(json.dumps(FILE | {"otlp_allowed": ["http://a.example"]}))
    assert LeaseSettings.load().otlp_allowed == ("http://a.example:80",)
    variable = "FLOWERBED_LEASE_OTLP_ALLOWED"
    monkeypatch.setenv(variable, "https://b.example, http://c.example:4318")
    assert LeaseSettings.load().otlp_allowed == ("https://b.example:443", "http://c.example:4318")
    monkeypatch.setenv(variable, "https://b.example/v1/traces")
    with pytest.raises(ValidationError, match="no origin"):
        LeaseSettings.load()
