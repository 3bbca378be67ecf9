"""Commands belong to the service that owns the facts; the gateway hands them on to it."""

from collections.abc import Mapping
from typing import Any

import httpx
from fastapi import Response
from pydantic import SecretStr

from flowerbed.events.errors import Unavailable
from flowerbed.events.telemetry import current_traceparent

PATIENCE = 15.0
LONG_PATIENCE = 900.0
"""For work that reads a whole round again."""

_KEPT = ("content-type", "retry-after")


class Upstream:
    """One service's internal API, spoken to with the internal token."""

    def __init__(self, name: str, url: str, token: SecretStr) -> None:
        self.name = name
        self._url = url.rstrip("/")
        self._token = token
        self._client: httpx.AsyncClient | None = None

    async def forward(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
        patience: float = PATIENCE,
    ) -> Response:
        """The service's own answer, its refusals too.

        Raises:
            Unavailable: it did not answer.
        """
        answer = await self._ask(method, path, body, params, patience)
        headers = {name: answer.headers[name] for name in _KEPT if name in answer.headers}
        return Response(answer.content, answer.status_code, headers=headers)

    async def fetch(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Any:
        """The answer's JSON.

        Raises:
            Unavailable: it did not answer, or not with success.
        """
        answer = await self._ask(method, path, body, params, PATIENCE)
        if not answer.is_success:
            raise Unavailable(f"{self.name} answered {answer.status_code}")
        return answer.json()

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        params: Mapping[str, str] | None,
        patience: float,
    ) -> httpx.Response:
        if self._client is None:
            self._client = httpx.AsyncClient(base_url=self._url)
        headers = {"authorization": f"Bearer {self._token.get_secret_value()}"}
        if traceparent := current_traceparent():
            headers["traceparent"] = traceparent
        timeout = httpx.Timeout(patience, connect=3.0)
        try:
            return await self._client.request(
                method, path, json=body, params=params, headers=headers, timeout=timeout
            )
        except httpx.TransportError as error:
            reason = type(error).__name__
            raise Unavailable(f"the {self.name} service did not answer: {reason}") from error
