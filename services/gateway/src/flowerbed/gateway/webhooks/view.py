"""What is said of a webhook, and what can be asked for."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from flowerbed.contracts.values import Token
from flowerbed.gateway.sse import LARGEST_POSITION
from flowerbed.gateway.views import View

EVERY_TENANT = "*"

Position = Annotated[int, Field(ge=0, le=LARGEST_POSITION)]


class WebhookRequest(BaseModel):
    """Without `after` only what is to come is sent; `after: 0` sends all of the history first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    tenant: Token | None = None
    federation_id: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    types: Annotated[tuple[str, ...], Field(min_length=1, max_length=64)] | None = None
    after: Position | None = None


class ReplayRequest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    after: Position


class Webhook(View):
    """`position`: up to there all was delivered. `lag`: how many events lie behind it (counted up
    to 1000). `status`: `disabled` after days without success, or when the receiver said so; a
    replay or a resume goes on with it."""

    webhook_id: str
    tenant: str | None
    url: str
    federation_id: str | None
    types: list[str] | None
    status: Literal["active", "paused", "disabled"]
    reason: str
    position: int
    lag: int
    n_failures: int
    failing_since: datetime | None
    last_error: str
    next_attempt_at: datetime | None
    delivered_at: datetime | None
    created_at: datetime
    created_by: str


class WebhookList(View):
    webhooks: list[Webhook]


class WebhookCreated(Webhook):
    """`secret` is shown here and never again."""

    secret: str
