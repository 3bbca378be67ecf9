"""What every service must be told, from one JSON file (mode 0600) and the environment."""

import os
import stat
from pathlib import Path
from typing import Annotated, Self

from pydantic import SecretStr
from pydantic_settings import (
    BaseSettings,
    JsonConfigSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from flowerbed.contracts.telemetry import Origins, OtlpProtocol

SETTINGS_FILE = "FLOWERBED_SETTINGS_FILE"


class ServiceSettings(BaseSettings):
    """A service subclasses it and sets its own `env_prefix`, such as `FLOWERBED_LEASE_`.

    A variable of the environment wins over the file that FLOWERBED_SETTINGS_FILE names.

    `otlp_allowed`: origins, with commas between them, to which a spec may have spans sent.
    """

    model_config = SettingsConfigDict(env_prefix="FLOWERBED_", frozen=True, extra="forbid")

    service: str
    database_host: str
    database_port: int
    database_name: str
    database_user: str
    database_password: SecretStr
    reader_user: str
    reader_password: SecretStr
    nats_url: str
    nats_user: str
    nats_password: SecretStr
    http_host: str = "127.0.0.1"
    http_port: int
    internal_token: SecretStr
    log_level: str = "INFO"
    otlp_endpoint: str | None = None
    otlp_protocol: OtlpProtocol | None = None
    otlp_allowed: Annotated[Origins, NoDecode] = ()

    @classmethod
    def load(cls) -> Self:
        """From the file and the environment alone."""
        return cls()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        path = os.environ.get(SETTINGS_FILE)
        if path is None:
            return init_settings, env_settings
        return (
            init_settings,
            env_settings,
            JsonConfigSettingsSource(settings_cls, _private(Path(path))),
        )


def _private(path: Path) -> Path:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise PermissionError(f"{path} holds secrets and has mode {mode:04o}, not 0600")
    return path
