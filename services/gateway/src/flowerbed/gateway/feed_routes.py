"""`GET /events`: the public feed, as a page of JSON or as a stream that never ends."""

from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Header, Query

from flowerbed.contracts.catalogue import EVENTS
from flowerbed.events.errors import Rejected
from flowerbed.gateway.auth import VIEWER, Tenant
from flowerbed.gateway.feed import Feed, FeedEvent, Filter
from flowerbed.gateway.sse import (
    ALIVE,
    LARGEST_POSITION,
    MEDIA_TYPE,
    LastEventId,
    resumed,
    stream,
)
from flowerbed.gateway.views import View

After: TypeAlias = Annotated[
    int, Query(ge=0, le=LARGEST_POSITION, description="Only what lies behind this position.")
]
Types: TypeAlias = Annotated[
    list[str] | None, Query(alias="type", description="Only these types; may be given again.")
]
_KNOWN = frozenset(event.type for event in EVENTS)


class FeedPage(View):
    events: list[FeedEvent]
    next_after: int


class TypeUnknown(Rejected):
    code = "event-type-unknown"
    status = 422


def feed_routes(feed: Feed) -> APIRouter:
    router = APIRouter(dependencies=[VIEWER])

    @router.get(
        "/events",
        response_model=FeedPage,
        responses={200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}},
    )
    async def events(
        after: After = 0,
        federation: str | None = None,
        types: Types = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
        tenant: Tenant = None,
        accept: Annotated[str, Header()] = "*/*",
        last_event_id: LastEventId = None,
    ) -> Any:
        """Every event in the order of its position. Ask with `Accept: text/event-stream` for a
        stream that goes on as events come; its `id` is the position, so it can be resumed."""
        wanted = Filter(tenant=tenant, federation_id=federation, types=known_types(types))
        begin = resumed(last_event_id, after)
        if MEDIA_TYPE in accept:
            return stream(_frames(feed, wanted, begin))
        found = await feed.page(wanted, begin, limit)
        return FeedPage(events=found, next_after=found[-1].position if found else begin)

    @router.get("/events/last", status_code=200)
    async def last() -> dict[str, int]:
        """The newest position: begin there to see only what is to come."""
        return {"position": await feed.last()}

    return router


def known_types(types: Iterable[str] | None) -> frozenset[str] | None:
    if not types:
        return None
    if unknown := sorted(set(types) - _KNOWN):
        raise TypeUnknown(f"{unknown[0][:80]!r} is no event type; docs/events.md lists them")
    return frozenset(types)


async def _frames(feed: Feed, wanted: Filter, after: int) -> AsyncIterator[bytes]:
    async with aclosing(feed.follow(wanted, after)) as following:
        async for batch in following:
            yield b"".join(event.frame for event in batch) if batch else ALIVE
