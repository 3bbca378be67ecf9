"""The lease service: wiring."""

from datetime import UTC, datetime, timedelta
from functools import partial

from flowerbed.artifact.blobs import Blobs
from flowerbed.contracts.catalogue import EVENTS
from flowerbed.events.codec import Codec
from flowerbed.events.service import Shell, run
from flowerbed.lease import federations, metrics
from flowerbed.lease.app import internal_routes, log_routes, relay_routes
from flowerbed.lease.consumers import consumers
from flowerbed.lease.desk import Desk
from flowerbed.lease.doors import client_door, enrol_door
from flowerbed.lease.enrolment import Enrolments
from flowerbed.lease.log_lines import LogShelf, forget_old
from flowerbed.lease.pki import Authority
from flowerbed.lease.projections.clients import clients
from flowerbed.lease.projections.leases import leases
from flowerbed.lease.relaying import Relaying
from flowerbed.lease.revocation import sweep
from flowerbed.lease.settings import LeaseSettings
from flowerbed.lease.signing import Signer
from flowerbed.lease.waiting import Waiting

now = partial(datetime.now, UTC)

WAITING = "wake.lease.waiting"
"""Where replicas tell each other whose long poll may have an answer."""


async def build(settings: LeaseSettings, shell: Shell) -> None:
    codec = Codec(EVENTS)
    store = shell.store(codec, projections=[clients, leases])
    waiting = Waiting(shell.stopping, partial(shell.bus.nudge, WAITING))
    shell.hear(WAITING, waiting.hear)
    signer = Signer.load(settings.signing_key_file)
    enrolments = Enrolments(
        database=shell.database,
        store=store,
        authority=Authority.load(settings.ca_certificate_file, settings.ca_key_file),
        jwks=signer.jwks(),
        enrol_url=settings.enrol_url,
        client_url=settings.client_url,
        certificate_ttl=timedelta(seconds=settings.certificate_ttl_seconds),
        now=now,
    )
    blobs = Blobs(
        settings.s3_endpoint,
        settings.s3_access_key.get_secret_value(),
        settings.s3_secret_key.get_secret_value(),
    )
    desk = Desk(
        database=shell.database,
        store=store,
        waiting=waiting,
        signer=signer,
        blobs=blobs,
        bucket=settings.s3_bucket,
        now=now,
    )
    own = {"ca": settings.ca_certificate_file, "server": settings.server_certificate_file}
    shell.measured.append(partial(metrics.tell_certificates, own))
    shelf = LogShelf(database=shell.database, now=now)
    for one in consumers(store, waiting, codec):
        shell.consume(one)
    shell.route_traces(federations.TELEMETRY)
    shell.background("silence", partial(sweep, shell.database, store, now), leader=True)
    shell.background("old log lines", partial(forget_old, shell.database, now), leader=True)
    shell.app.include_router(
        internal_routes(settings.internal_token, shell.database, store, enrolments)
    )
    shell.app.include_router(log_routes(settings.internal_token, shelf))
    shell.app.include_router(relay_routes(settings.internal_token, Relaying(desk)))
    shell.serve(client_door(desk, enrolments, shelf), settings.client_socket)
    shell.serve(enrol_door(enrolments), settings.enrol_socket)


def main() -> None:
    settings = LeaseSettings.load()
    run(settings, partial(build, settings))


if __name__ == "__main__":
    main()
