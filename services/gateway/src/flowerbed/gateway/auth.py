"""Who may ask: whoever shows the API token. Which tenant is meant: the query says."""

import hmac
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeAlias

from fastapi import Header, Query
from pydantic import SecretStr, StringConstraints

from flowerbed.events.http import Unauthorized

Tenant: TypeAlias = Annotated[
    Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None,
    Query(description="Only what this tenant owns; all tenants without it."),
]


def api_token_only(token: SecretStr) -> Callable[[str | None], Awaitable[None]]:
    """A dependency that lets through only callers who know the API token."""
    expected = f"Bearer {token.get_secret_value()}".encode()

    async def check(authorization: Annotated[str | None, Header()] = None) -> None:
        if not hmac.compare_digest((authorization or "").encode(), expected):
            raise Unauthorized("the API token is required: `Authorization: Bearer TOKEN`")

    return check
