"""`/webhooks`: who is called about which events, how far each has come, and from where again."""

from collections.abc import Callable

from fastapi import APIRouter

from flowerbed.gateway.auth import ADMIN, ADMIN_IN_BODY, Role, Tenant, acting
from flowerbed.gateway.feed import Feed
from flowerbed.gateway.feed_routes import known_types
from flowerbed.gateway.noting import note
from flowerbed.gateway.reads import Reads
from flowerbed.gateway.webhooks.store import Webhooks
from flowerbed.gateway.webhooks.targets import calls_this_machine, checked_url
from flowerbed.gateway.webhooks.view import (
    EVERY_TENANT,
    ReplayRequest,
    Webhook,
    WebhookCreated,
    WebhookList,
    WebhookRequest,
)


def webhook_routes(
    webhooks: Webhooks, feed: Feed, reads: Reads, changed: Callable[[], None]
) -> APIRouter:
    """`changed` is told when the one that delivers should look."""
    router = APIRouter(prefix="/webhooks", dependencies=[ADMIN])

    @router.post("", status_code=201, dependencies=[ADMIN_IN_BODY])
    async def create(asked: WebhookRequest, tenant: Tenant = None) -> WebhookCreated:
        """The answer holds the secret that signs what is sent; it is not shown again."""
        known_types(asked.types)
        owner, who = asked.tenant or tenant, acting()
        who.require(Role.admin, None if calls_this_machine(checked_url(asked.url)) else owner)
        note(tenant=owner, role=Role.admin)
        if asked.federation_id is not None:
            owner = await reads.tenant_of_federation(owner, asked.federation_id)
        after = await feed.last() if asked.after is None else asked.after
        made = await webhooks.create(asked, owner or EVERY_TENANT, after=after, by=who.actor)
        changed()
        return made

    @router.get("")
    async def listed(tenant: Tenant = None) -> WebhookList:
        return WebhookList(webhooks=await webhooks.all(tenant))

    @router.get("/{webhook_id}")
    async def one(webhook_id: str, tenant: Tenant = None) -> Webhook:
        return await webhooks.one(tenant, webhook_id)

    @router.delete("/{webhook_id}", status_code=204)
    async def delete(webhook_id: str, tenant: Tenant = None) -> None:
        await webhooks.delete(tenant, webhook_id)
        changed()

    @router.post("/{webhook_id}/replay")
    async def replay(webhook_id: str, asked: ReplayRequest, tenant: Tenant = None) -> Webhook:
        """Send everything behind `after` again; one that was disabled or paused is active again."""
        await webhooks.replay(tenant, webhook_id, asked.after)
        changed()
        return await webhooks.one(tenant, webhook_id)

    @router.post("/{webhook_id}/pause")
    async def pause(webhook_id: str, tenant: Tenant = None) -> Webhook:
        await webhooks.pause(tenant, webhook_id)
        changed()
        return await webhooks.one(tenant, webhook_id)

    @router.post("/{webhook_id}/resume")
    async def resume(webhook_id: str, tenant: Tenant = None) -> Webhook:
        """Go on where it was, at once."""
        await webhooks.resume(tenant, webhook_id)
        changed()
        return await webhooks.one(tenant, webhook_id)

    return router
