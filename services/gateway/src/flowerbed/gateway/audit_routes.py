"""`GET /audit`: who gave which command, when, and what became of it; `GET /whoami`."""

from typing import Annotated

from fastapi import APIRouter, Query

from flowerbed.gateway.auth import ADMIN, ANYBODY, Tenant, acting
from flowerbed.gateway.paths import Moment
from flowerbed.gateway.trail import LARGEST_ID, AuditRow, Trail, Wanted
from flowerbed.gateway.views import View


class AuditPage(View):
    """Newest first. `next_before`: where the next page begins; none at the end."""

    rows: list[AuditRow]
    next_before: int | None


class Whoami(View):
    """`roles`: by tenant; `*` is all tenants. `actor`: as events and the audit trail say it."""

    subject: str
    issuer: str
    actor: str
    roles: dict[str, str]


def audit_routes(trail: Trail) -> APIRouter:
    router = APIRouter()

    @router.get("/whoami", dependencies=[ANYBODY])
    async def whoami() -> Whoami:
        """Who the token says that you are, and what you may do."""
        who = acting()
        roles = {tenant: str(role) for tenant, role in who.roles.items()}
        return Whoami(subject=who.subject, issuer=who.issuer, actor=who.actor, roles=roles)

    @router.get("/audit", dependencies=[ADMIN])
    async def audit(
        tenant: Tenant = None,
        before: Annotated[int, Query(ge=1, le=LARGEST_ID)] = LARGEST_ID,
        actor: Annotated[str | None, Query(max_length=600)] = None,
        federation: Annotated[str | None, Query(max_length=64)] = None,
        status: Annotated[int | None, Query(ge=100, le=599)] = None,
        since: Moment | None = None,
        until: Moment | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    ) -> AuditPage:
        """Every request that would change something, refused ones too. An admin of all tenants
        sees those that belong to none as well, such as requests without a token."""
        wanted = Wanted(
            before=before, actor=actor, federation_id=federation, status=status,
            since=since, until=until,
        )  # fmt: skip
        rows = await trail.page(tenant, wanted, limit + 1)
        more = len(rows) > limit
        return AuditPage(rows=rows[:limit], next_before=rows[limit - 1].id if more else None)

    return router
