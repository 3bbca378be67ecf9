"""What a client may ask of the lease service, behind the door that knows who it is.

Every question may be repeated. A client reaches its own leases alone: a lease of another client
or tenant is answered like one that does not exist.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from flowerbed.artifact.blobs import Blobs
from flowerbed.contracts.door import (
    LeaseBeat,
    LeaseClaim,
    LeaseDecline,
    LeaseHeld,
    LeaseOffer,
    LeaseOffers,
    LeasePoll,
    WorkFailure,
    WorkOffer,
    WorkPoll,
    WorkReport,
)
from flowerbed.contracts.forms import UPDATE_FORM
from flowerbed.contracts.ids import lease_id
from flowerbed.contracts.trace import of_work
from flowerbed.events import release
from flowerbed.events.commands import execute
from flowerbed.events.context import Context
from flowerbed.events.database import Connection, Database
from flowerbed.events.errors import Rejected
from flowerbed.events.store import EventStore
from flowerbed.events.telemetry import span
from flowerbed.lease import federations, heartbeats, metrics, nodes, reports, terms, work
from flowerbed.lease.clients import ClientNotAdmitted
from flowerbed.lease.datasets import DatasetNotAdmitted, admit
from flowerbed.lease.forms import FormNotKept, not_kept
from flowerbed.lease.leases import (
    ClaimLease,
    DatasetChanged,
    DeclineLease,
    IssueLease,
    LeaseCommand,
    LeaseLost,
    ReleaseLease,
    answering,
    lease,
)
from flowerbed.lease.leaving import leave
from flowerbed.lease.owning import own_lease
from flowerbed.lease.pki import Peer
from flowerbed.lease.projections import clients, leases
from flowerbed.lease.projections.leases import Lease
from flowerbed.lease.signing import Signer
from flowerbed.lease.waiting import Waiting
from flowerbed.lease.work import Work
from flowerbed.lease.writing import retried


class WorkClosed(Rejected):
    """The exchange is over, or was never ordered from this client."""

    code = "work-closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    database: Database
    store: EventStore
    waiting: Waiting
    signer: Signer
    blobs: Blobs
    bucket: str = "flowerbed"
    now: Callable[[], datetime]

    async def poll(self, peer: Peer, poll: LeasePoll) -> LeaseOffers:
        """Leases that the client does not know yet; waits for one to come up."""
        known = {(key.lease_id, key.epoch) for key in poll.known}

        async def look() -> LeaseOffers | None:
            offers = await retried(
                self.database, peer.tenant, lambda tx: self._offers(tx, peer, known)
            )
            return LeaseOffers(offers=tuple(offers)) if offers else None

        found = await self.waiting.until(peer.tenant, look, poll.wait_seconds)
        return found or LeaseOffers()

    async def claim(self, peer: Peer, lease_key: str, claim: LeaseClaim) -> LeaseHeld:
        command = ClaimLease(epoch=claim.epoch, dataset=claim.dataset, node_key=claim.node_key)

        async def act(tx: Connection) -> Lease | FormNotKept:
            held = await own_lease(tx, peer, lease_key)
            federation = await federations.find(tx, held.federation_id)
            if federation is None:
                raise LeaseLost("the federation is over")
            admit(federation.spec.spec.dataset_spec, claim.dataset)
            nodes.check_named(federation, claim.node_key)
            if (told := not_kept(federation.spec, claim)) is not None:
                decline = DeclineLease(epoch=claim.epoch, code=UPDATE_FORM, detail=told)
                await self._command(tx, peer, held, decline)
                return FormNotKept(told)  # once that is recorded
            await self._command(tx, peer, held, command)
            await heartbeats.beat(tx, peer.tenant, held, self.now())
            return held

        try:
            held = await retried(self.database, peer.tenant, act)
            if isinstance(held, FormNotKept):
                raise held
            return self._held(held)
        except (DatasetNotAdmitted, DatasetChanged, FormNotKept) as refusal:
            metrics.refused(refusal.code)
            raise

    async def decline(self, peer: Peer, lease_key: str, decline: LeaseDecline) -> None:
        """Record why the site does not take the lease up; it stays as it is.

        Not while a replica of the release before, which does not know that fact, may read it.
        """
        command = DeclineLease(epoch=decline.epoch, code=decline.code, detail=decline.detail)

        async def act(tx: Connection) -> None:
            held = await own_lease(tx, peer, lease_key)
            if await release.reached(tx):
                await self._command(tx, peer, held, command)

        await retried(self.database, peer.tenant, act)

    async def beat(self, peer: Peer, lease_key: str, beat: LeaseBeat) -> LeaseHeld:
        async with self.database.transaction(peer.tenant) as tx:
            held = await self._held_by(tx, peer, lease_key, beat.epoch)
            now = self.now()
            await heartbeats.beat(tx, peer.tenant, held, now)
            if beat.idle_seconds is not None:
                await nodes.was_idle(tx, lease_key, now - timedelta(seconds=beat.idle_seconds))
        return self._held(held)

    async def next_work(self, peer: Peer, lease_key: str, poll: WorkPoll) -> WorkOffer:
        """The work that the lease owes, at once when there is some. Asking is a heartbeat;
        that it is still asked is none, for the client may have gone without a word."""
        is_asking = True

        async def look() -> str | None:
            nonlocal is_asking
            is_first, is_asking = is_asking, False
            return await self._order(peer, lease_key, poll.epoch, is_alive=is_first)

        order = await self.waiting.until(lease_key, look, poll.wait_seconds)
        return WorkOffer(order=order)

    async def report(self, peer: Peer, lease_key: str, work_id: str, report: WorkReport) -> None:
        async def act(tx: Connection) -> None:
            held, owed = await self._owed(tx, peer, lease_key, work_id, report.epoch)
            if owed is None:
                return
            await reports.check_fits(tx, held, owed, report)
            done = reports.answered(held, owed, report.epoch, report)
            await self._command(tx, peer, held, answering(done), owed.traceparent)
            await work.answered(tx, lease_key, work_id)

        await retried(self.database, peer.tenant, act)

    async def fail(self, peer: Peer, lease_key: str, work_id: str, failure: WorkFailure) -> None:
        async def act(tx: Connection) -> None:
            held, owed = await self._owed(tx, peer, lease_key, work_id, failure.epoch)
            if owed is None:
                return
            failed = reports.failed(held, owed, failure.epoch, failure.code, failure.detail)
            await self._command(tx, peer, held, answering(failed), owed.traceparent)
            await work.answered(tx, lease_key, work_id)

        await retried(self.database, peer.tenant, act)

    async def release(self, peer: Peer, lease_key: str, epoch: int, reason: str) -> None:
        command = ReleaseLease(epoch=epoch, reason=reason or "released by the client")

        async def act(tx: Connection) -> None:
            held = await own_lease(tx, peer, lease_key)
            context = Context(
                tenant=peer.tenant, correlation_id=held.federation_id, actor=peer.client_id
            )
            await leave(tx, self.store, lease_key, command, context)

        await retried(self.database, peer.tenant, act)
        self.waiting.wake(lease_key)

    async def admit_virtual(
        self,
        tx: Connection,
        peer: Peer,
        federation: federations.OpenFederation,
        command: ClaimLease | DeclineLease,
    ) -> None:
        """Issue a virtual client its lease where it has none, and do that under it."""
        identity = lease_id(federation.federation_id, peer.client_id)
        held = await leases.find(tx, identity)
        if held is None or held.status in ("dropped", "released"):
            held = await self._issue(tx, peer, federation)
        if isinstance(command, ClaimLease):
            admit(federation.spec.spec.dataset_spec, command.dataset)
        await self._command(tx, peer, held, replace(command, epoch=held.epoch))

    # --- helpers, in order of use -------------------------------------------

    async def _offers(
        self, tx: Connection, peer: Peer, known: set[tuple[str, int]]
    ) -> list[LeaseOffer]:
        """Issues what is due, and signs what the client has not seen."""
        client = await clients.find(tx, peer.client_id)
        if client is None or client.status != "enrolled":
            raise ClientNotAdmitted(f"client {peer.client_id} is not enrolled")
        mine = {one.federation_id: one for one in await leases.of_client(tx, peer.client_id)}
        offers, stored = [], terms.Stored(self.blobs, self.bucket)
        for federation in await federations.admitting(tx, client.tags):
            one = mine.get(federation.federation_id)
            if one is None or one.status in ("dropped", "released"):
                if not await federations.hold_open(tx, federation.federation_id):
                    continue
                one = await self._issue(tx, peer, federation)
            if (one.lease_id, one.epoch) not in known:
                terms_of_lease = terms.manifest(one, federation, peer.tenant, self.now(), stored)
                offers.append(
                    LeaseOffer(
                        lease_id=one.lease_id,
                        federation_id=one.federation_id,
                        epoch=one.epoch,
                        manifest=self.signer.sign(terms_of_lease),
                    )
                )
        return offers

    async def _issue(
        self, tx: Connection, peer: Peer, federation: federations.OpenFederation
    ) -> Lease:
        identity = lease_id(federation.federation_id, peer.client_id)
        command = IssueLease(
            federation_id=federation.federation_id,
            client_id=peer.client_id,
            lease_id=identity,
            ttl_seconds=federation.spec.spec.lease.ttl_seconds,
        )
        stream = f"lease-{federation.federation_id}-{peer.client_id}"
        context = Context(
            tenant=peer.tenant, correlation_id=federation.federation_id, actor=peer.client_id
        )
        metrics.count(await execute(tx, self.store, lease, stream, command, context))
        issued = await leases.find(tx, identity)
        assert issued is not None  # its projection runs in this transaction
        return issued

    async def _order(self, peer: Peer, lease_key: str, epoch: int, *, is_alive: bool) -> str | None:
        async with self.database.transaction(peer.tenant) as tx:
            held = await self._held_by(tx, peer, lease_key, epoch)
            now = self.now()
            if is_alive:
                await heartbeats.beat(tx, peer.tenant, held, now)
            owed = await work.to_hand_out(tx, lease_key, now)
            if owed is None:
                return None
            federation = await federations.find(tx, held.federation_id)
            takes_measures = await release.reached(tx)
        if federation is None or federation.is_over_superlink:
            return None  # over a SuperLink a relay hands it out
        context = Context(
            tenant=peer.tenant, correlation_id=held.federation_id, actor=peer.client_id
        )
        under, to = of_work(held.federation_id, owed.work_id), held.client_id
        with span("work order", context, under=under, about=owed.exchange, client_id=to):
            order = terms.work_order(owed, held, federation, peer.tenant, now, self.blobs)
            more = {"takes_measures": takes_measures, "traceparent": under}
            return self.signer.sign(order.model_copy(update=more))

    async def _owed(
        self, tx: Connection, peer: Peer, lease_key: str, work_id: str, epoch: int
    ) -> tuple[Lease, Work | None]:
        """The work being answered; None if it was answered before, which changes nothing."""
        held = await self._held_by(tx, peer, lease_key, epoch)
        await heartbeats.beat(tx, peer.tenant, held, self.now())
        owed = await work.find(tx, lease_key, work_id)
        if owed is not None:
            return held, owed
        history = await self.store.read(tx, held.stream)
        state = lease.replay(recorded.event for recorded in history)
        if work_id in state.answered:
            return held, None
        raise WorkClosed(f"work {work_id} is not open: its exchange has ended")

    async def _held_by(self, tx: Connection, peer: Peer, lease_key: str, epoch: int) -> Lease:
        one = await own_lease(tx, peer, lease_key)
        if one.status != "held" or one.epoch != epoch:
            raise LeaseLost(f"epoch {epoch} does not hold the lease ({one.status}, {one.epoch})")
        return one

    async def _command(
        self,
        tx: Connection,
        peer: Peer,
        held: Lease,
        command: LeaseCommand,
        traceparent: str | None = None,
    ) -> None:
        context = Context(
            tenant=peer.tenant,
            correlation_id=held.federation_id,
            traceparent=traceparent,
            actor=peer.client_id,
        )
        metrics.count(await execute(tx, self.store, lease, held.stream, command, context))

    def _held(self, held: Lease) -> LeaseHeld:
        return LeaseHeld(
            lease_id=held.lease_id,
            epoch=held.epoch,
            expires_at=heartbeats.expires_at(self.now(), held.ttl_seconds),
            heartbeat_seconds=heartbeats.interval(held.ttl_seconds),
        )
