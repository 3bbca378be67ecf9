"""Who may ask, and what: tokens become principals, and each route says which role it needs.

    router = APIRouter(dependencies=[VIEWER])          # for all of its routes
    @router.post("/…", dependencies=[OPERATOR])        # for one

`tenant: Tenant` of a route is then the one tenant that the principal may act in, or None if that is
all of them. What is asked of the read models with it can show nothing else.
"""

import hmac
from collections.abc import Iterable
from typing import Annotated, TypeAlias

from fastapi import Depends, Query
from pydantic import SecretStr, StringConstraints
from starlette.requests import HTTPConnection

from flowerbed.contracts.issuers import Issuer
from flowerbed.events.http import Unauthorized
from flowerbed.gateway.noting import note
from flowerbed.gateway.principal import (
    Forbidden,
    Principal,
    Role,
    acting,
    acting_as,
    current_actor,
    local_principal,
)
from flowerbed.gateway.tokens import Tokens

__all__ = [
    "ADMIN",
    "ADMIN_IN_BODY",
    "ANYBODY",
    "OPERATOR",
    "OPERATOR_IN_BODY",
    "VIEWER",
    "Authenticator",
    "Forbidden",
    "Principal",
    "Role",
    "Tenant",
    "acting",
    "acting_as",
    "admitted",
    "current_actor",
]

TENANT_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"


class Authenticator:
    """The API token of this stack, and the tokens of the issuers that were set up."""

    def __init__(self, api_token: SecretStr, issuers: Iterable[Issuer] = ()) -> None:
        self._expected = api_token.get_secret_value().encode()
        self._tokens = Tokens(issuers)
        self._local = local_principal()

    async def authenticate(self, authorization: str | None) -> Principal:
        """
        Raises:
            Unauthorized: there is no token, or it proves nothing.
            Unavailable: the token's issuer must be asked for its keys, and does not answer.
        """
        scheme, _, token = (authorization or "").strip().partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized("a token is required: `Authorization: Bearer TOKEN`")
        if hmac.compare_digest(token.encode(errors="replace"), self._expected):
            return self._local
        if not self._tokens:
            raise Unauthorized("this is not the API token")
        return await self._tokens.principal(token)

    async def close(self) -> None:
        await self._tokens.close()


class Needs:
    """The role that a route needs, as a dependency of the route. None: a known token is enough.
    `in_body`: the tenant is named in what is sent, so it is checked where that is read."""

    def __init__(self, role: Role | None, *, in_body: bool = False) -> None:
        self.role = role
        self.in_body = in_body

    async def __call__(self) -> None:
        """Says it; `admitted` sees to it."""


ANYBODY = Depends(Needs(None))
VIEWER = Depends(Needs(Role.viewer))
OPERATOR = Depends(Needs(Role.operator))
ADMIN = Depends(Needs(Role.admin))
OPERATOR_IN_BODY = Depends(Needs(Role.operator, in_body=True))
ADMIN_IN_BODY = Depends(Needs(Role.admin, in_body=True))


def declared(dependencies: Iterable[object]) -> Needs | None:
    """The need among a route's dependencies; the last one is the nearest."""
    found = [getattr(one, "dependency", None) for one in dependencies]
    return next((one for one in reversed(found) if isinstance(one, Needs)), None)


def needed(connection: HTTPConnection) -> Needs:
    """What the route in hand needs; one that says nothing is for reading, or else for admins."""
    route = connection.scope.get("route")
    found = declared(getattr(route, "dependencies", ()))
    if found is not None:
        return found
    return Needs(Role.viewer if connection.scope.get("method") in ("GET", "HEAD") else Role.admin)


async def admitted(
    connection: HTTPConnection,
    tenant: Annotated[
        Annotated[str, StringConstraints(pattern=TENANT_PATTERN)] | None,
        Query(description="Only what this tenant owns; all that you may see without it."),
    ] = None,
) -> str | None:
    """The tenant in which the principal may do what the route does; None for all tenants.

    Raises:
        Unauthorized: nobody asks.
        Forbidden: with another role than is needed.
    """
    principal, needs = acting(), needed(connection)
    if needs.role is None:
        return None
    if needs.in_body and tenant is None and len(principal.tenants(needs.role)) > 1:
        return None  # it is named in what they send, and looked at there
    found = principal.scope(needs.role, tenant)
    note(tenant=found, role=principal.role_in(found))
    return found


Tenant: TypeAlias = Annotated[str | None, Depends(admitted)]
"""One tenant, or None for all that there are: checked, whatever was asked for."""
