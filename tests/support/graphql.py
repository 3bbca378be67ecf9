"""Asks a gateway by GraphQL."""

import json
from typing import Any, Protocol

import httpx


class Asked(Protocol):
    @property
    def http(self) -> httpx.AsyncClient: ...


async def ask(gateway: Asked, query: str, **variables: Any) -> dict[str, Any]:
    body = {"query": query, "variables": variables}
    raw, headers = json.dumps(body).encode(), {"content-type": "application/json"}
    answer = await gateway.http.post("/graphql", content=raw, headers=headers)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def data(gateway: Asked, query: str, **variables: Any) -> Any:
    told = await ask(gateway, query, **variables)
    assert "errors" not in told, told
    return told["data"]


async def error(gateway: Asked, query: str, **variables: Any) -> dict[str, Any]:
    (found,) = (await ask(gateway, query, **variables))["errors"]
    told: dict[str, Any] = found
    return told
