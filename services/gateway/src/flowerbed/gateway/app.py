"""The gateway on a shell: read models behind it, routes in front, every one but health guarded."""

from collections.abc import Callable
from functools import partial

from fastapi import Depends, Request

from flowerbed.events.rest import Rest
from flowerbed.events.service import Shell
from flowerbed.events.store import EventStore
from flowerbed.events.telemetry import endpoint_is_set
from flowerbed.gateway import metrics
from flowerbed.gateway.app_routes import app_routes
from flowerbed.gateway.apps import Apps
from flowerbed.gateway.audit_routes import audit_routes
from flowerbed.gateway.auth import Authenticator, admitted
from flowerbed.gateway.command_routes import command_routes, submission_routes
from flowerbed.gateway.consumers import REST, codec, consumers
from flowerbed.gateway.dead_letter_routes import dead_letter_routes
from flowerbed.gateway.door import Door, is_public
from flowerbed.gateway.feed import Feed
from flowerbed.gateway.feed_routes import feed_routes
from flowerbed.gateway.graph.context import Sources
from flowerbed.gateway.graph.routes import GraphDoor
from flowerbed.gateway.live_routes import live_routes
from flowerbed.gateway.log_routes import log_routes
from flowerbed.gateway.many import Many
from flowerbed.gateway.openapi import document
from flowerbed.gateway.projections import PROJECTIONS
from flowerbed.gateway.reads import Reads
from flowerbed.gateway.service_routes import service_routes
from flowerbed.gateway.settings import GatewaySettings
from flowerbed.gateway.slo import Slos
from flowerbed.gateway.status_routes import status_routes
from flowerbed.gateway.submissions import Submissions
from flowerbed.gateway.traces.export import trace_export
from flowerbed.gateway.traces.specs import spec_traces
from flowerbed.gateway.trail import Trail
from flowerbed.gateway.upstream import Upstream
from flowerbed.gateway.web_routes import web_routes
from flowerbed.gateway.webhooks.delivery import Deliveries
from flowerbed.gateway.webhooks.routes import webhook_routes
from flowerbed.gateway.webhooks.store import Webhooks
from flowerbed.gateway.why.routes import why_routes

WEBHOOKS_CHANGED = "wake.gateway.webhooks"


async def build(settings: GatewaySettings, shell: Shell) -> None:
    rest = Rest(REST)

    async def hurried(request: Request) -> None:
        """Who gives a command looks next at what came of it."""
        if request.method != "GET":
            rest.hurry()

    store = shell.store(codec, PROJECTIONS)
    for consumer in consumers(store, rest):
        shell.consume(consumer)
    shell.measured.append(partial(metrics.measure, shell.database))
    _export_traces(settings, shell, store)
    reads = Reads(shell.database)
    upstreams = _upstreams(settings)
    feed = Feed(shell.database, shell.stopping)
    shell.appended(feed.wake)
    apps = Apps(shell.database, upstreams["artifact"])
    submissions = Submissions(
        shell.database,
        shell.bus.publish,
        settings.internal_token,
        settings.otlp_allowed,
        has_app=apps.has,
    )
    slos, webhooks, trail = Slos(shell.database), Webhooks(shell.database), Trail(shell.database)
    guarded = [Depends(admitted), Depends(hurried)]
    for router in (
        submission_routes(submissions),
        command_routes(reads, upstreams),
        app_routes(apps, upstreams["artifact"]),
        dead_letter_routes(upstreams),
        status_routes(reads),
        log_routes(reads, upstreams),
        why_routes(reads, upstreams),
        feed_routes(feed),
        live_routes(feed, reads, upstreams),
        service_routes(upstreams, slos),
        webhook_routes(webhooks, feed, reads, _deliver(settings, shell, webhooks, feed)),
        audit_routes(trail),
    ):
        shell.app.include_router(router, dependencies=guarded)
    shell.app.include_router(web_routes())  # it shows nothing without a token
    sources = Sources(
        reads=reads,
        many=Many(shell.database),
        feed=feed,
        slos=slos,
        submissions=submissions,
        upstreams=upstreams,
        hurry=rest.hurry,
    )
    authenticator = Authenticator(settings.api_token, settings.issuers)
    shell.app.include_router(GraphDoor(authenticator, sources, settings.limits.requests))
    _shut(settings, shell, authenticator, trail)


def _export_traces(settings: GatewaySettings, shell: Shell, store: EventStore) -> None:
    """The spans that events end: to the operator's collector, and to those of specs."""
    shell.route_traces()
    if endpoint_is_set(settings.otlp_endpoint):
        traces = trace_export(shell.database, store, settings.otlp_endpoint, settings.otlp_protocol)
        shell.background("traces", traces.run, leader=True)
    if settings.otlp_allowed:
        of_specs = spec_traces(shell.database, store, settings.otlp_allowed)
        shell.background("traces of specs", of_specs.run, leader=True)


def _deliver(
    settings: GatewaySettings, shell: Shell, webhooks: Webhooks, feed: Feed
) -> Callable[[], None]:
    """One replica delivers. What comes back tells it, wherever it is, that a webhook changed."""
    deliveries = Deliveries(webhooks, feed, settings.webhook_pace, shell.stopping)
    shell.background("webhooks", deliveries.run, leader=True)
    shell.lag("webhooks", webhooks.lag)
    shell.hear(WEBHOOKS_CHANGED, lambda _: deliveries.wake())

    def changed() -> None:
        deliveries.wake()
        shell.bus.nudge(WEBHOOKS_CHANGED)

    return changed


def _shut(
    settings: GatewaySettings, shell: Shell, authenticator: Authenticator, trail: Trail
) -> None:
    """Nobody gets past the door unknown, and what they may find behind it is written down."""
    shell.background("audit", trail.run)
    shell.app.router.redirect_slashes = False
    shell.app.state.trail = trail
    shell.app.add_middleware(
        Door, authenticator=authenticator, limits=settings.limits, trail=trail, is_public=is_public
    )
    document(shell.app)


def _upstreams(settings: GatewaySettings) -> dict[str, Upstream]:
    urls: dict[str, str | tuple[str, ...]] = {
        "orchestrator": settings.orchestrator_url,
        "lease": settings.lease_url,
        "aggregator": settings.aggregator_url,
        "artifact": settings.artifact_url,
        "gateway": f"http://{settings.http_host}:{settings.http_port}",
    }
    return {name: Upstream(name, url, settings.internal_token) for name, url in urls.items()}
