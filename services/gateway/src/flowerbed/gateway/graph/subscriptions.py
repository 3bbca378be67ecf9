"""The feed over a WebSocket: every event behind `after`, in order, once, and then as they come.

Whoever was cut off asks again with the last position it has seen, and misses nothing.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import strawberry

from flowerbed.gateway.feed import Filter
from flowerbed.gateway.feed_routes import known_types
from flowerbed.gateway.graph.context import Info
from flowerbed.gateway.graph.kinds import BEGINNING, Long
from flowerbed.gateway.graph.types import EventKind


async def _followed(info: Info, wanted: Filter, after: int) -> AsyncGenerator[Any, None]:
    async with aclosing(info.context.sources.feed.follow(wanted, after)) as batches:
        async for batch in batches:
            for event in batch:
                yield event


@strawberry.type
class Subscription:
    @strawberry.subscription(graphql_type=EventKind, description="Events about one federation.")
    async def federation_events(
        self, info: Info, id: strawberry.ID, after: Long = BEGINNING,
        types: list[str] | None = None, tenant: str | None = None,
    ) -> AsyncGenerator[Any, None]:  # fmt: skip
        scope = info.context.may_read(tenant)
        owner = await info.context.sources.reads.tenant_of_federation(scope, id)
        wanted = Filter(tenant=owner, federation_id=id, types=known_types(types))
        async with aclosing(_followed(info, wanted, after)) as events:
            async for event in events:
                yield event

    @strawberry.subscription(graphql_type=EventKind, description="Events about anything.")
    async def events(
        self, info: Info, after: Long = BEGINNING,
        types: list[str] | None = None, tenant: str | None = None,
    ) -> AsyncGenerator[Any, None]:  # fmt: skip
        wanted = Filter(tenant=info.context.may_read(tenant), types=known_types(types))
        async with aclosing(_followed(info, wanted, after)) as events:
            async for event in events:
                yield event
