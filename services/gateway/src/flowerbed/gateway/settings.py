"""What the gateway must be told."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, SecretStr
from pydantic_settings import NoDecode, SettingsConfigDict

from flowerbed.contracts.issuers import Issuer, read_issuers
from flowerbed.events.settings import ServiceSettings
from flowerbed.gateway.door import LONGEST_BODY, Limits
from flowerbed.gateway.rates import Rate
from flowerbed.gateway.webhooks.pace import Pace


def _several(value: Any) -> Any:
    """One address, several with commas between them, or a list."""
    return tuple(value.split(",")) if isinstance(value, str) else value


def _rate(value: Any) -> Any:
    return Rate.parse(value) if isinstance(value, str) else value


Urls = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_several)]
Limit = Annotated[Rate, NoDecode, BeforeValidator(_rate), PlainSerializer(str)]
Issuers = Annotated[tuple[Issuer, ...], BeforeValidator(read_issuers)]


class GatewaySettings(ServiceSettings):
    """`api_token`: what people and the CLI show. The urls: where commands are forwarded to, an
    address a replica. `issuers`: whose tokens are taken beside it. The limits: of requests and of
    commands by one principal, and of requests from one address without a token that is known.
    `webhook_pace`: how patient webhooks are with their receivers."""

    model_config = SettingsConfigDict(env_prefix="FLOWERBED_GATEWAY_")

    api_token: SecretStr
    orchestrator_url: Urls
    lease_url: Urls
    aggregator_url: Urls
    artifact_url: Urls
    webhook_pace: Pace = Pace()
    issuers: Issuers = ()
    limit_requests: Limit = Rate.parse("30000/minute")
    limit_commands: Limit = Rate.parse("6000/minute")
    limit_strangers: Limit = Rate.parse("600/minute")
    limit_body_bytes: Annotated[int, Field(ge=1024)] = LONGEST_BODY

    @property
    def limits(self) -> Limits:
        return Limits(
            requests=self.limit_requests,
            writes=self.limit_commands,
            strangers=self.limit_strangers,
            body_bytes=self.limit_body_bytes,
        )
