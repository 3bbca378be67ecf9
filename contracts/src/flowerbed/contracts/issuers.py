"""Who may say who people are: OIDC issuers, and how roles are read from their tokens."""

import ipaddress
from typing import Annotated, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    model_validator,
)

from flowerbed.contracts.values import Token

ALL_TENANTS = "*"

RoleName: TypeAlias = Literal["viewer", "operator", "admin"]
TenantName: TypeAlias = Token | Literal["*"]
"""`*` is every tenant."""


def is_loopback(host: str | None) -> bool:
    """True for an address of this very machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def checked_url(url: str) -> str:
    """An https address; http only where nobody can listen in between.

    Raises:
        ValueError: it is another, or none.
    """
    parts = urlsplit(url)
    if parts.username or parts.password or parts.fragment or parts.query or not parts.hostname:
        raise ValueError(f"{url!r} is not the plain address of an issuer")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
        raise ValueError(f"{url!r} must begin with https://; http:// is for this machine alone")
    return url


Url: TypeAlias = Annotated[str, AfterValidator(checked_url)]
Claim: TypeAlias = str | tuple[str, ...]
"""A claim by its name; a claim inside of another by `outer.inner`, or as a list of names."""


class Issuer(BaseModel):
    """`issuer`: exactly as its tokens and its discovery document name it. `audience`: what its
    tokens must name.

    `roles_claim` holds `{"tenant": "role"}` or `["tenant:role", …]`. `groups_claim` holds names of
    groups, and `group_roles` says what each may do. `tenants`: all it may speak for, if not all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: Url
    audience: Annotated[str, StringConstraints(min_length=1)]
    roles_claim: Claim | None = "flowerbed_roles"
    groups_claim: Claim | None = None
    group_roles: dict[str, dict[TenantName, RoleName]] = {}
    tenants: frozenset[Token] | None = None
    leeway_seconds: Annotated[int, Field(ge=0, le=300)] = 30

    @model_validator(mode="after")
    def _gives_roles(self) -> "Issuer":
        if (self.groups_claim is None) != (not self.group_roles):
            raise ValueError("groups_claim and group_roles need each other")
        if self.roles_claim is None and self.groups_claim is None:
            raise ValueError("without roles_claim and groups_claim its people could do nothing")
        return self


def read_issuers(document: object) -> tuple[Issuer, ...]:
    """
    Raises:
        ValueError: it is no list of issuers, or names one twice.
    """
    issuers = TypeAdapter(tuple[Issuer, ...]).validate_python(document)
    names = [one.issuer for one in issuers]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{min(twice)!r} is given twice")
    return issuers
