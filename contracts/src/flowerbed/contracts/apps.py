"""Flower apps of people's own: how a spec names one, where its bundle lies, and that it was pushed.

fab:<sha256>             in `spec.app`: a Flower App Bundle (FAB) that was pushed
app:<module>:<name>      in `model_ref.uri`: what in the app gives the base checkpoint
"""

from typing import ClassVar

from pydantic import Field

from flowerbed.contracts.event import Event
from flowerbed.contracts.values import Sha256, Token

BUILTIN = "builtin:"
PUSHED = "fab:"
MODEL = "app:"

_NAME = r"[A-Za-z_][A-Za-z0-9_.]{0,199}"
APP_PATTERN = r"^(builtin:[a-z0-9-]+|fab:[0-9a-f]{64})$"
MODEL_PATTERN = rf"app:{_NAME}:{_NAME}"
OBJECT_PATTERN = rf"^{_NAME}:{_NAME}$"
FLOWERS_STRATEGIES = "flwr.serverapp.strategy:"


class AppPushed(Event):
    """A Flower App Bundle (FAB) was stored for a tenant; the same bytes again are the same app.

    `name`, `version` and `publisher` are what its pyproject.toml says, and nobody has checked.
    """

    type: ClassVar[str] = "fl.app.pushed"
    sha256: Sha256
    size: int = Field(ge=1)
    uri: str
    name: str
    version: str
    publisher: str
    pushed_by: str = ""


def is_pushed(app: str) -> bool:
    """Whether `spec.app` names a bundle, not an app that ships with this version."""
    return app.startswith(PUSHED)


def bundle_uri(bucket: str, tenant: Token, sha256: Sha256) -> str:
    """Where a tenant's bundle lies: what another tenant pushed is not there."""
    return f"s3://{bucket}/{bundle_key(tenant, sha256)}"


def bundle_key(tenant: Token, sha256: Sha256) -> str:
    return f"apps/{tenant}/{sha256}.fab"
