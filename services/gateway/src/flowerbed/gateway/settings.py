"""What the gateway must be told."""

from typing import Annotated, Any

from pydantic import BeforeValidator, SecretStr
from pydantic_settings import NoDecode, SettingsConfigDict

from flowerbed.events.settings import ServiceSettings


def _several(value: Any) -> Any:
    """One address, several with commas between them, or a list."""
    return tuple(value.split(",")) if isinstance(value, str) else value


Urls = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_several)]


class GatewaySettings(ServiceSettings):
    """`api_token`: what people and the CLI show. The urls: where commands are forwarded to, an
    address a replica."""

    model_config = SettingsConfigDict(env_prefix="FLOWERBED_GATEWAY_")

    api_token: SecretStr
    orchestrator_url: Urls
    lease_url: Urls
    aggregator_url: Urls
    artifact_url: Urls
