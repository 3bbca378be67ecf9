"""The lease service as a relay speaks to it: over HTTP, with the internal token."""

from collections.abc import Collection, Sequence
from typing import Protocol, TypeVar

import httpx
from pydantic import BaseModel, SecretStr

from flowerbed.contracts.relay import (
    MOST_AT_ONCE,
    RelayAnswer,
    RelayAnswers,
    RelayBeats,
    RelayHeld,
    RelayMember,
    RelayMembers,
    RelayNodes,
    RelayPoll,
    RelayQuestion,
    RelayRefusal,
    RelayRefusals,
    RelayWork,
)
from flowerbed.events.errors import FlowerbedError, Unavailable

A = TypeVar("A", bound=BaseModel)

PATIENCE = 30.0
"""Seconds, beside the time that a long poll waits."""


class FederationOver(FlowerbedError):
    """Nobody waits for an answer any more."""


class RelayRefused(FlowerbedError):
    """The lease service refused the request itself."""


class Works(Protocol):
    """Where a relay gets its orders and leaves its answers.

    Raises, each of them:
        FederationOver: there is nothing more to do.
        Unavailable: the same call may work later.
    """

    async def next(self, known: Collection[str], wait_seconds: float) -> RelayWork:
        """What is open and not known, and what of the known is closed; waits for either."""
        ...

    async def answer(self, answers: Sequence[RelayAnswer]) -> Sequence[RelayRefusal]:
        """Leave answers; those that came too late."""
        ...


class LeaseWorks:
    """The work of one federation. Of several replicas it keeps to one that answers."""

    def __init__(
        self, urls: Sequence[str], token: SecretStr, federation_id: str, tenant: str
    ) -> None:
        self._urls = [f"{url.rstrip('/')}/internal/relay/{federation_id}" for url in urls]
        self._tenant = tenant
        headers = {"authorization": f"Bearer {token.get_secret_value()}"}
        self._http = httpx.AsyncClient(headers=headers)

    async def next(self, known: Collection[str], wait_seconds: float) -> RelayWork:
        poll = RelayPoll(tenant=self._tenant, wait_seconds=wait_seconds, known=tuple(known))
        return await self._ask("/work", poll, RelayWork, PATIENCE + wait_seconds)

    async def answer(self, answers: Sequence[RelayAnswer]) -> Sequence[RelayRefusal]:
        refused: list[RelayRefusal] = []
        for start in range(0, len(answers), MOST_AT_ONCE):
            part = tuple(answers[start : start + MOST_AT_ONCE])
            body = RelayAnswers(tenant=self._tenant, answers=part)
            refused += (await self._ask("/answers", body, RelayRefusals)).refused
        return refused

    async def join(self, members: Sequence[RelayMember]) -> RelayHeld:
        """Virtual clients join, at most `MOST_AT_ONCE`; which of them hold a lease now."""
        return await self._ask(
            "/members", RelayMembers(tenant=self._tenant, members=tuple(members)), RelayHeld
        )

    async def beat(self, clients: Sequence[str]) -> RelayHeld:
        """A sign of life of at most `MOST_AT_ONCE` clients; which of them hold a lease."""
        return await self._ask(
            "/beats", RelayBeats(tenant=self._tenant, clients=tuple(clients)), RelayHeld
        )

    async def nodes(self) -> RelayNodes:
        """The SuperNodes of those who hold a lease."""
        return await self._ask("/nodes", RelayQuestion(tenant=self._tenant), RelayNodes)

    async def close(self) -> None:
        await self._http.aclose()

    async def _ask(
        self, path: str, body: BaseModel, kind: type[A], patience: float = PATIENCE
    ) -> A:
        headers = {"content-type": "application/json"}
        content, timeout = body.model_dump_json(), httpx.Timeout(patience, connect=3.0)
        url = self._urls[0]
        try:
            answer = await self._http.post(
                url + path, content=content, headers=headers, timeout=timeout
            )
        except httpx.TransportError as error:
            self._urls.append(self._urls.pop(0))  # the next one first, the next time
            reason = type(error).__name__
            raise Unavailable(f"the lease service did not answer: {reason}") from error
        if answer.status_code == httpx.codes.GONE:
            raise FederationOver("the federation is over")
        if answer.is_server_error:
            raise Unavailable(f"the lease service answered {answer.status_code}")
        if not answer.is_success:
            raise RelayRefused(f"the lease service answered {answer.status_code}: {answer.text}")
        return kind.model_validate_json(answer.content)
