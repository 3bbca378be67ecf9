"""Commands belong to the service that owns the facts; the gateway hands them on to it."""

from collections.abc import Mapping, Sequence
from typing import Any

import httpx
from fastapi import Response
from pydantic import SecretStr

from flowerbed.contracts.actor import ACTOR_HEADER
from flowerbed.events.errors import Unavailable
from flowerbed.events.telemetry import current_traceparent
from flowerbed.gateway.principal import current_actor

PATIENCE = 15.0
LONG_PATIENCE = 900.0
"""For work that reads a whole round again."""
CONNECT_PATIENCE = 3.0
HEALTH_PATIENCE = 1.0

_KEPT = ("content-type", "retry-after")


class Upstream:
    """One service's internal API, spoken to with the internal token.

    Of several replicas it keeps to the one that answered last. A replica may accept connections
    and never answer (a paused one does), and a command is not safely sent twice: so it is asked
    for its health first.
    """

    def __init__(self, name: str, urls: str | Sequence[str], token: SecretStr) -> None:
        self.name = name
        each = (urls,) if isinstance(urls, str) else urls
        self._urls = [url.rstrip("/") for url in each]
        self._token = token
        self._client: httpx.AsyncClient | None = None

    async def forward(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        content: bytes | None = None,
        params: Mapping[str, str] | None = None,
        patience: float = PATIENCE,
    ) -> Response:
        """The service's own answer, its refusals too. `content`: what is sent instead of JSON.

        Raises:
            Unavailable: it did not answer.
        """
        sent = {"json": body} if content is None else {"content": content}
        answer = await self._ask(method, path, sent, params, patience)
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
        answer = await self._ask(method, path, {"json": body}, params, PATIENCE)
        if not answer.is_success:
            raise Unavailable(f"{self.name} answered {answer.status_code}")
        return answer.json()

    @property
    def urls(self) -> tuple[str, ...]:
        """Of the replicas, always in the same order."""
        return tuple(sorted(self._urls))

    async def readiness(self, url: str, patience: float) -> Any:
        """What the replica at `url` says of itself, ready or not.

        Raises:
            Unavailable: it did not answer.
        """
        try:
            answer = await self._http().get(f"{url}/readyz", timeout=patience)
            return answer.json()
        except (httpx.TransportError, ValueError) as error:
            reason = type(error).__name__
            raise Unavailable(f"{self.name} did not answer: {reason}") from error

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _ask(
        self,
        method: str,
        path: str,
        sent: Mapping[str, Any],
        params: Mapping[str, str] | None,
        patience: float,
    ) -> httpx.Response:
        headers = {"authorization": f"Bearer {self._token.get_secret_value()}"}
        if traceparent := current_traceparent():
            headers["traceparent"] = traceparent
        if actor := current_actor():
            headers[ACTOR_HEADER] = actor
        timeout = httpx.Timeout(patience, connect=CONNECT_PATIENCE)
        for attempt in range(1, len(self._urls) + 1):
            url = await self._well_url()
            try:
                return await self._http().request(
                    method, url + path, params=params, headers=headers, timeout=timeout, **sent
                )
            except httpx.TransportError as error:
                if attempt < len(self._urls) and _may_be_sent_again(method, error):
                    self._move_on(url)
                    continue
                reason = type(error).__name__
                raise Unavailable(f"the {self.name} service did not answer: {reason}") from error
        raise AssertionError("a service has at least one url")

    async def _well_url(self) -> str:
        """The first replica that says it is healthy; the only one is not asked."""
        if len(self._urls) == 1:
            return self._urls[0]
        for url in tuple(self._urls):
            try:
                await self._http().get(f"{url}/healthz", timeout=HEALTH_PATIENCE)
                return url
            except httpx.TransportError:
                self._move_on(url)
        return self._urls[0]

    def _move_on(self, url: str) -> None:
        """It is the last to be tried from now on."""
        if self._urls[0] == url:
            self._urls.append(self._urls.pop(0))

    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient()
        return self._client


def _may_be_sent_again(method: str, error: httpx.TransportError) -> bool:
    """It reached nobody, or asks without changing anything."""
    return isinstance(error, httpx.ConnectError | httpx.ConnectTimeout) or method == "GET"
