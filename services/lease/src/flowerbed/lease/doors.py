"""The clients' two doors as FastAPI apps, each served on a Unix socket behind the TLS front.

The front ends TLS, demands a certificate of our CA on the client door, and hands it on in
`Client-Cert` (RFC 9440). A socket cannot be reached around it.
"""

from typing import Annotated

from fastapi import Depends, FastAPI, Header, Path
from fastapi.responses import PlainTextResponse

from flowerbed.contracts.door import (
    Accepted,
    Certificate,
    CertificateRequest,
    Enrolled,
    Enrolment,
    LeaseBeat,
    LeaseClaim,
    LeaseDecline,
    LeaseHeld,
    LeaseOffers,
    LeasePoll,
    LeaseRelease,
    LogBatch,
    WorkFailure,
    WorkOffer,
    WorkPoll,
    WorkReport,
)
from flowerbed.lease.desk import Desk
from flowerbed.lease.enrolment import Enrolments
from flowerbed.lease.log_lines import LogShelf
from flowerbed.lease.pki import CertificateUnreadable, Peer, read_peer


async def _peer(client_cert: Annotated[str, Header()] = "") -> Peer:
    if not client_cert:
        raise CertificateUnreadable("this door needs a client certificate")
    return read_peer(client_cert)


KnownPeer = Annotated[Peer, Depends(_peer)]
Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9._-]{1,300}$")]


def enrol_door(enrolments: Enrolments) -> FastAPI:
    """For who has no certificate yet: the CA to check against the invite, and enrolment."""
    app = FastAPI(title="Flowerbed enrolment", openapi_url=None)

    @app.get("/ca.pem", response_class=PlainTextResponse)
    async def ca() -> str:
        return enrolments.authority.pem

    @app.post("/v1/enrol")
    async def enrol(request: Enrolment) -> Enrolled:
        return await enrolments.enrol(request)

    return app


def client_door(desk: Desk, enrolments: Enrolments, shelf: LogShelf) -> FastAPI:
    """For enrolled clients: leases and work, and what their apps write meanwhile."""
    app = FastAPI(title="Flowerbed clients' door", openapi_url=None)

    @app.get("/.well-known/jwks.json")
    async def jwks() -> dict[str, object]:
        return desk.signer.jwks()

    @app.post("/v1/certificate")
    async def certificate(request: CertificateRequest, peer: KnownPeer) -> Certificate:
        return await enrolments.renew(peer, request)

    @app.post("/v1/leases/poll")
    async def poll(request: LeasePoll, peer: KnownPeer) -> LeaseOffers:
        return await desk.poll(peer, request)

    @app.post("/v1/leases/{lease_id}/claim")
    async def claim(lease_id: Name, request: LeaseClaim, peer: KnownPeer) -> LeaseHeld:
        return await desk.claim(peer, lease_id, request)

    @app.post("/v1/leases/{lease_id}/decline")
    async def decline(lease_id: Name, request: LeaseDecline, peer: KnownPeer) -> Accepted:
        await desk.decline(peer, lease_id, request)
        return Accepted()

    @app.post("/v1/leases/{lease_id}/heartbeat")
    async def heartbeat(lease_id: Name, request: LeaseBeat, peer: KnownPeer) -> LeaseHeld:
        return await desk.beat(peer, lease_id, request)

    @app.post("/v1/leases/{lease_id}/work/next")
    async def next_work(lease_id: Name, request: WorkPoll, peer: KnownPeer) -> WorkOffer:
        return await desk.next_work(peer, lease_id, request)

    @app.post("/v1/leases/{lease_id}/work/{work_id}/report")
    async def report(
        lease_id: Name, work_id: Name, request: WorkReport, peer: KnownPeer
    ) -> Accepted:
        await desk.report(peer, lease_id, work_id, request)
        return Accepted()

    @app.post("/v1/leases/{lease_id}/work/{work_id}/failure")
    async def failure(
        lease_id: Name, work_id: Name, request: WorkFailure, peer: KnownPeer
    ) -> Accepted:
        await desk.fail(peer, lease_id, work_id, request)
        return Accepted()

    @app.post("/v1/leases/{lease_id}/logs")
    async def logs(lease_id: Name, request: LogBatch, peer: KnownPeer) -> Accepted:
        await shelf.take(peer, lease_id, request)
        return Accepted()

    @app.post("/v1/leases/{lease_id}/release")
    async def release(lease_id: Name, request: LeaseRelease, peer: KnownPeer) -> Accepted:
        await desk.release(peer, lease_id, request.epoch, request.reason)
        return Accepted()

    return app
