"""`GET /federations/{id}/live`: what a page shows of one federation, as it happens."""

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from flowerbed.gateway.auth import VIEWER, Tenant
from flowerbed.gateway.dead_letter_routes import collect
from flowerbed.gateway.feed import Feed
from flowerbed.gateway.live import Live
from flowerbed.gateway.paths import FederationId
from flowerbed.gateway.reads import Reads
from flowerbed.gateway.sse import LARGEST_POSITION, MEDIA_TYPE, LastEventId, resumed, stream
from flowerbed.gateway.upstream import Upstream
from flowerbed.gateway.why.routes import letters

ROUNDS_IN_DETAIL = 8
PATIENCE = 1.0


def live_routes(feed: Feed, reads: Reads, upstreams: dict[str, Upstream]) -> APIRouter:
    router = APIRouter(dependencies=[VIEWER])
    views = Views(reads, upstreams)
    live = Live(feed, views.show)

    @router.get(
        "/federations/{federation_id}/live",
        response_class=StreamingResponse,
        responses={200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}},
    )
    async def follow(
        federation_id: FederationId, tenant: Tenant = None, last_event_id: LastEventId = None
    ) -> StreamingResponse:
        """First `view` with all of it, then `patch` (RFC 7386) with what changed and `events`
        with what was recorded. Resumed by `Last-Event-ID`, no event is missing."""
        owner = await reads.tenant_of_federation(tenant, federation_id)
        after = min(resumed(last_event_id, 0), LARGEST_POSITION) if last_event_id else None
        return stream(live.follow(owner, federation_id, after))

    return router


class Views:
    """Lists become tables by a key, so that a change of one row is a small patch."""

    def __init__(self, reads: Reads, upstreams: dict[str, Upstream]) -> None:
        self._reads = reads
        self._upstreams = upstreams
        self._letters: tuple[list[dict[str, Any]], list[str]] = [], []

    async def show(self, tenant: str, federation_id: str, is_quiet: bool) -> dict[str, Any]:
        """Dead letters are looked for when nothing happens: they are why it would not."""
        if is_quiet:
            self._letters = await collect(self._upstreams, PATIENCE)
        found, away = self._letters
        federation = await self._reads.federation(tenant, federation_id)
        since = federation.round_number - ROUNDS_IN_DETAIL + 1
        updates = await self._reads.updates(tenant, federation_id, since_round=since)
        why = await self._reads.why(
            tenant, federation_id, datetime.now(UTC), letters(found, federation_id), away
        )
        shown = federation.model_dump(mode="json")
        rounds, clients, artifacts = (
            shown.pop(name) for name in ("rounds", "clients", "artifacts")
        )
        return {
            "federation": shown,
            "rounds": {f"{one['round_number']}.{one['attempt']}": one for one in rounds},
            "clients": {one["client_id"]: one for one in clients},
            "artifacts": {_place(one): one for one in artifacts},
            "updates": {_answer(one): one for one in (u.model_dump(mode="json") for u in updates)},
            "why": why.model_dump(mode="json"),
        }


def _place(artifact: dict[str, Any]) -> str:
    parts = ("round_number", "attempt", "exchange", "kind")
    return ".".join(str(artifact[part]) for part in parts)


def _answer(update: dict[str, Any]) -> str:
    parts = ("round_number", "attempt", "exchange", "client_id")
    return ".".join(str(update[part]) for part in parts)
