"""What a resolver has at hand: who asks, where answers come from, and one batch a kind."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import strawberry
from strawberry.dataloader import DataLoader
from strawberry.fastapi import BaseContext

from flowerbed.contracts.event import is_token
from flowerbed.events.errors import Rejected
from flowerbed.events.http import Unauthorized
from flowerbed.gateway.feed import Feed
from flowerbed.gateway.many import Listing, Many, Page, Parent, Wanted
from flowerbed.gateway.noting import note
from flowerbed.gateway.principal import Forbidden, Principal, Role
from flowerbed.gateway.rates import Limiter
from flowerbed.gateway.reads import Reads
from flowerbed.gateway.slo import Slos
from flowerbed.gateway.submissions import Submissions
from flowerbed.gateway.upstream import Upstream


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """`hurry`: who gives a command looks next at what came of it."""

    reads: Reads
    many: Many
    feed: Feed
    slos: Slos
    submissions: Submissions
    upstreams: dict[str, Upstream]
    hurry: Callable[[], None]


class CommandsByPost(Rejected):
    code = "commands-by-post"
    status = 400


class OneCommandAtOnce(Rejected):
    """Each has a row of its own in the audit trail, and counts as one write."""

    code = "one-command-at-once"
    status = 400


class TenantUnreadable(Rejected):
    code = "not-valid"
    status = 422


class Context(BaseContext):
    """Of one request, or of one WebSocket: nothing that was read is kept.

    `limiter`: of what is asked over a WebSocket.
    """

    def __init__(self, sources: Sources, limiter: Limiter | None = None) -> None:
        super().__init__()
        self.sources = sources
        self.principal: Principal | None = None
        self._limiter = limiter
        self._has_commanded = False
        many = sources.many
        self.rows = _loader(many.federations)
        self.metrics = _loader(many.metrics)
        self.lineages = _loader(many.lineages)
        self._pages: dict[str, DataLoader[tuple[Parent, Wanted], Page[Any]]] = {}

    def may_read(self, tenant: str | None) -> str | None:
        """The tenant in which they may look; None if they may in all, and named none.

        Raises:
            Forbidden, TenantNeeded: they may not, or must name one.
        """
        return self._scope(Role.viewer, tenant)

    def may_look(self) -> None:
        """At what belongs to no tenant: whoever is a viewer of any may."""
        if self.principal is None or not self.principal.tenants(Role.viewer):
            raise Forbidden("this needs the role viewer in some tenant")

    def may_steer(self, tenant: str | None, action: str) -> str | None:
        """Likewise, for a command; it gets a row in the audit trail."""
        self._command(action)
        return self._scope(Role.operator, tenant)

    def may_submit(self) -> None:
        """Whose the spec is, is looked at when it has been read."""
        self._command("startFederatedTrainingJob")

    def seconds_to_wait(self) -> int:
        """Before one more may be asked over this WebSocket."""
        if self._limiter is None or self.principal is None:
            return 0
        verdict = self._limiter.take(self.principal.actor)
        return 0 if verdict.is_allowed else max(1, round(verdict.retry_after + 0.5))

    def _command(self, action: str) -> None:
        if self._limiter is not None:
            raise CommandsByPost("commands are taken by POST alone")
        if self._has_commanded:
            raise OneCommandAtOnce("a request gives one command; give the next in another")
        self._has_commanded = True
        note(is_write=True, action=action)

    def _scope(self, role: Role, tenant: str | None) -> str | None:
        if self.principal is None:
            raise Unauthorized("a token is required")
        if tenant is not None and not is_token(tenant):
            raise TenantUnreadable(f"{tenant[:80]!r} is not the name of a tenant")
        return self.principal.scope(role, tenant)

    async def page(self, listing: Listing[Any], parent: Parent, wanted: Wanted) -> Page[Any]:
        """Together with the same page of other parents."""
        if listing.name not in self._pages:
            self._pages[listing.name] = _loader(_by_page(self.sources.many, listing))
        return await self._pages[listing.name].load((parent, wanted))


Info: TypeAlias = strawberry.Info[Context, None]


def _loader(load: Callable[[Sequence[Any]], Awaitable[Any]]) -> DataLoader[Any, Any]:
    return DataLoader(load_fn=load, cache=False)


def _by_page(
    many: Many, listing: Listing[Any]
) -> Callable[[Sequence[tuple[Parent, Wanted]]], Awaitable[list[Page[Any]]]]:
    async def load(asked: Sequence[tuple[Parent, Wanted]]) -> list[Page[Any]]:
        found: dict[tuple[Parent, Wanted], Page[Any]] = {}
        for wanted in dict.fromkeys(wanted for _, wanted in asked):
            parents = list(dict.fromkeys(parent for parent, meant in asked if meant == wanted))
            pages = await many.pages(listing, parents, wanted)
            found.update(zip([(parent, wanted) for parent in parents], pages, strict=True))
        return [found[one] for one in asked]

    return load
