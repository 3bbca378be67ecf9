"""What the gateway must be told."""

from typing import Annotated, Any

from pydantic import BeforeValidator, SecretStr
from pydantic_settings import NoDecode, SettingsConfigDict

from flowerbed.events.settings import ServiceSettings
from flowerbed.gateway.webhooks.pace import Pace


def _several(value: Any) -> Any:
    """One address, several with commas between them, or a list."""
    return tuple(value.split(",")) if isinstance(value, str) else value


Urls = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_several)]


class GatewaySettings(ServiceSettings):
    """`api_token`: what people and the CLI show. The urls: where commands are forwarded to, an
    address a replica. `webhook_pace`: how patient webhooks are with their receivers."""

    model_config = SettingsConfigDict(env_prefix="FLOWERBED_GATEWAY_")

    api_token: SecretStr
    orchestrator_url: Urls
    lease_url: Urls
    aggregator_url: Urls
    artifact_url: Urls
    webhook_pace: Pace = Pace()
