"""What can be asked. Every list takes `first` and `after`; every answer is a read model's."""

from datetime import UTC, datetime
from typing import Any

import strawberry

from flowerbed.gateway.cursors import encoded
from flowerbed.gateway.dead_letter_routes import collect
from flowerbed.gateway.feed import Filter
from flowerbed.gateway.feed_routes import known_types
from flowerbed.gateway.graph.context import Info
from flowerbed.gateway.graph.kinds import BEGINNING, Long, connection, paged
from flowerbed.gateway.graph.types import (
    After,
    ClientKind,
    EventKind,
    FederatedTrainingJob,
    FederationKind,
    First,
    LineageKind,
    OutOfRange,
    RecordsKind,
    RoundKind,
    ServiceKind,
    SloKind,
    WhyKind,
    checked_first,
    job_of,
    page,
)
from flowerbed.gateway.many import ROUNDS, FederationRow
from flowerbed.gateway.service_routes import look_at
from flowerbed.gateway.why.routes import PATIENCE, letters

MOST_HOURS = 24 * 90


async def federation_row(info: Info, tenant: str | None, federation_id: str) -> FederationRow:
    """
    Raises:
        NotFound: it is not known, or not this tenant's.
    """
    scope = info.context.may_read(tenant)
    owner = await info.context.sources.reads.tenant_of_federation(scope, federation_id)
    found: FederationRow = await info.context.rows.load((owner, federation_id))
    return found


@strawberry.type
class Query:
    @strawberry.field(graphql_type=paged(FederationKind), description="Newest first.")
    async def federations(
        self, info: Info, first: First = 50, after: After = None,
        tenant: str | None = None, status: str | None = None, name: str | None = None,
    ) -> Any:  # fmt: skip
        found = await info.context.sources.reads.federations(
            info.context.may_read(tenant),
            status=status,
            name=name,
            cursor=after,
            limit=checked_first(first),
        )
        rows = [
            (encoded(one.created_at.isoformat(), one.federation_id), one)
            for one in found.federations
        ]
        return connection(rows, found.next_cursor is not None, behind=after is not None)

    @strawberry.field(graphql_type=FederationKind | None)
    async def federation(self, info: Info, id: strawberry.ID, tenant: str | None = None) -> Any:
        return await federation_row(info, tenant, id)

    @strawberry.field(
        graphql_type=FederatedTrainingJob | None, description="A federation as a job."
    )
    async def get_federated_training_job(
        self, info: Info, id: strawberry.ID, tenant: str | None = None
    ) -> Any:
        return job_of(await federation_row(info, tenant, id))

    @strawberry.field(graphql_type=paged(RoundKind), description="Every attempt of one round.")
    async def round(
        self, info: Info, federation_id: strawberry.ID, number: int,
        first: First = 50, after: After = None, tenant: str | None = None,
    ) -> Any:  # fmt: skip
        row = await federation_row(info, tenant, federation_id)
        parent = row.tenant, row.federation_id
        return await page(info, ROUNDS, parent, first, after, round_number=number)

    @strawberry.field(
        graphql_type=WhyKind | None, description="What a federation waits for, and until when."
    )
    async def why(self, info: Info, federation_id: strawberry.ID, tenant: str | None = None) -> Any:
        sources, tenant = info.context.sources, info.context.may_read(tenant)
        await sources.reads.tenant_of_federation(tenant, federation_id)
        found, away = await collect(sources.upstreams, PATIENCE)
        told = letters(found, federation_id)
        return await sources.reads.why(tenant, federation_id, datetime.now(UTC), told, away)

    @strawberry.field(graphql_type=LineageKind | None)
    async def lineage(
        self, info: Info, federation_id: strawberry.ID, tenant: str | None = None
    ) -> Any:
        scope = info.context.may_read(tenant)
        return await info.context.sources.reads.lineage(scope, federation_id)

    @strawberry.field(graphql_type=paged(ClientKind), description="Every client ever invited.")
    async def clients(
        self, info: Info, first: First = 50, after: After = None, tenant: str | None = None
    ) -> Any:
        found = await info.context.sources.reads.clients(
            info.context.may_read(tenant), cursor=after, limit=checked_first(first)
        )
        rows = [(encoded(one.tenant, one.client_id), one) for one in found.clients]
        return connection(rows, found.next_cursor is not None, behind=after is not None)

    @strawberry.field(graphql_type=RecordsKind | None, description="By its digest.")
    async def artifact(self, info: Info, sha256: str, tenant: str | None = None) -> Any:
        scope = info.context.may_read(tenant)
        return await info.context.sources.reads.artifact(scope, sha256)

    @strawberry.field(
        graphql_type=paged(EventKind), description="The feed; a cursor is a position in it."
    )
    async def events(
        self, info: Info, first: First = 50, after: Long = BEGINNING,
        tenant: str | None = None, federation_id: str | None = None,
        types: list[str] | None = None,
    ) -> Any:  # fmt: skip
        scope = info.context.may_read(tenant)
        wanted = Filter(tenant=scope, federation_id=federation_id, types=known_types(types))
        limit = checked_first(first)
        found = await info.context.sources.feed.page(wanted, after, limit + 1)
        rows = [(str(event.position), event) for event in found[:limit]]
        return connection(rows, len(found) > limit, behind=after > 0)

    @strawberry.field(
        graphql_type=list[ServiceKind], description="Readiness, lags and dead letters of each."
    )
    async def services(self, info: Info) -> Any:
        info.context.may_look()
        return await look_at(info.context.sources.upstreams)

    @strawberry.field(
        graphql_type=SloKind, description="Indicators, objectives and what is left of budgets."
    )
    async def slo(self, info: Info, hours: int = 24 * 28, tenant: str | None = None) -> Any:
        if not 1 <= hours <= MOST_HOURS:
            raise OutOfRange(f"hours is {hours}; 1 to {MOST_HOURS} is allowed")
        return await info.context.sources.slos.over(info.context.may_read(tenant), hours)
