"""What the gateway must be told."""

from pydantic import SecretStr
from pydantic_settings import SettingsConfigDict

from flowerbed.events.settings import ServiceSettings


class GatewaySettings(ServiceSettings):
    """`api_token`: what people and the CLI show. The urls: where commands are forwarded to."""

    model_config = SettingsConfigDict(env_prefix="FLOWERBED_GATEWAY_")

    api_token: SecretStr
    orchestrator_url: str
    lease_url: str
    aggregator_url: str
    artifact_url: str
