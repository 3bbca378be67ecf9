"""What a relay asks of the lease service: a federation's open work at once, for many clients.

A relay stands for clients that another transport reaches, or that are virtual. It may hand out
what their leases owe and report what they made of it; each answer is recorded as if the client
had given it itself.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from flowerbed.contracts.door import WorkReport
from flowerbed.contracts.relay import (
    RelayAnswer,
    RelayAnswers,
    RelayBeats,
    RelayHeld,
    RelayMember,
    RelayMembers,
    RelayNodes,
    RelayOrder,
    RelayPoll,
    RelayQuestion,
    RelayRefusal,
    RelayRefusals,
    RelayWork,
)
from flowerbed.contracts.server_app import MessagesPushed
from flowerbed.events.connection import Connection
from flowerbed.events.errors import NotFound, Rejected
from flowerbed.lease import federations, heartbeats, nodes, terms, work
from flowerbed.lease.desk import Desk
from flowerbed.lease.federations import OpenFederation
from flowerbed.lease.leases import ClaimLease, DeclineLease, LeaseLost
from flowerbed.lease.pki import Peer
from flowerbed.lease.projections import leases
from flowerbed.lease.projections.leases import Lease
from flowerbed.lease.work import Work
from flowerbed.lease.writing import retried

logger = logging.getLogger(__name__)


class NotSimulated(Rejected):
    """Only a federation whose runtime is simulation has virtual clients."""

    code = "not-simulated"


@dataclass(frozen=True, slots=True)
class Relaying:
    desk: Desk

    async def join(self, federation_id: str, joining: RelayMembers) -> RelayHeld:
        """Virtual clients get their leases and claim them, or say why they cannot.

        Raises:
            LeaseLost: the federation is over.
            NotSimulated: its clients are sites.
        """
        now = self.desk.now()

        async def act(tx: Connection) -> RelayHeld:
            federation = await _open(tx, federation_id)
            if not federation.is_simulated:
                raise NotSimulated(f"{federation_id} has no virtual clients")
            if not await federations.hold_open(tx, federation_id):
                raise LeaseLost("the federation is over")
            for member in joining.members:
                peer = _virtual(member.client_id, joining.tenant)
                await self.desk.admit_virtual(tx, peer, federation, _claim(member))
            joined = [one.client_id for one in joining.members if one.dataset is not None]
            held = await heartbeats.beat_all(tx, federation_id, joined, now)
            return _held(federation, held)

        return await retried(self.desk.database, joining.tenant, act)

    async def beat(self, federation_id: str, beats: RelayBeats) -> RelayHeld:
        """Raises: LeaseLost: the federation is over."""
        async with self.desk.database.transaction(beats.tenant) as tx:
            federation = await _open(tx, federation_id)
            now = self.desk.now()
            held = await heartbeats.beat_all(tx, federation_id, beats.clients, now)
        return _held(federation, held)

    async def work(self, federation_id: str, poll: RelayPoll) -> RelayWork:
        """What is open and not known to the relay, and what it knows and is closed; waits for it.

        Raises:
            LeaseLost: the federation is over.
        """
        known = frozenset(poll.known)

        async def look() -> RelayWork | None:
            async with self.desk.database.transaction(poll.tenant) as tx:
                federation = await _open(tx, federation_id)
                held = await leases.held_in(tx, federation_id)
                owed = await work.open_in(tx, federation_id)
            now = self.desk.now()
            found = _found(federation, held, owed, known, now)
            return found if found.orders or found.closed else None

        found = await self.desk.waiting.until(federation_id, look, poll.wait_seconds)
        return found or RelayWork()

    async def nodes(self, federation_id: str, question: RelayQuestion) -> RelayNodes:
        """The SuperNodes of those who hold a lease.

        Raises:
            LeaseLost: the federation is over.
        """
        async with self.desk.database.transaction(question.tenant) as tx:
            await _open(tx, federation_id)
            found = await nodes.held_in(tx, federation_id)
        return RelayNodes(nodes=tuple(found), now=self.desk.now())

    async def answer(self, federation_id: str, answers: RelayAnswers) -> RelayRefusals:
        """Record each answer; one that is refused does not hold up the others."""
        async with self.desk.database.transaction(answers.tenant) as tx:
            federation = await _open(tx, federation_id)
        refused: list[RelayRefusal] = []
        for one in answers.answers:
            peer = _virtual(one.client_id, answers.tenant)
            if not federation.is_simulated:
                peer = replace(peer, is_virtual=False)
            try:
                await self._record(peer, one)
            except (Rejected, NotFound) as error:
                code = getattr(error, "code", "not-found")
                logger.info("the answer to %s is refused: %s: %s", one.work_id, code, error)
                refused.append(RelayRefusal(work_id=one.work_id, code=code, detail=str(error)))
        return RelayRefusals(refused=tuple(refused))

    async def _record(self, peer: Peer, one: RelayAnswer) -> None:
        if isinstance(one.answer, WorkReport):
            await self.desk.report(peer, one.lease_id, one.work_id, one.answer)
        else:
            await self.desk.fail(peer, one.lease_id, one.work_id, one.answer)


def _virtual(client_id: str, tenant: str) -> Peer:
    return Peer(client_id=client_id, tenant=tenant, public_key_sha256="", is_virtual=True)


def _claim(member: RelayMember) -> ClaimLease | DeclineLease:
    """Under whatever epoch the lease has."""
    if member.dataset is None:
        return DeclineLease(epoch=0, code=member.code, detail=member.detail)
    return ClaimLease(epoch=0, dataset=member.dataset)


def _held(federation: OpenFederation, clients: Sequence[str]) -> RelayHeld:
    seconds = heartbeats.interval(federation.spec.spec.lease.ttl_seconds)
    return RelayHeld(clients=tuple(clients), heartbeat_seconds=seconds)


async def _open(tx: Connection, federation_id: str) -> OpenFederation:
    federation = await federations.find(tx, federation_id)
    if federation is None:
        raise LeaseLost("the federation is over")
    return federation


def _found(
    federation: OpenFederation,
    held: dict[str, Lease],
    owed: list[tuple[str, Work]],
    known: Collection[str],
    at: datetime,
) -> RelayWork:
    owing = [(held[lease], one) for lease, one in owed if lease in held and at < one.until]
    still = {one.work_id for _, one in owing}
    return RelayWork(
        orders=tuple(
            _order(federation, lease, one) for lease, one in owing if one.work_id not in known
        ),
        closed=tuple(work_id for work_id in known if work_id not in still),
    )


def _order(federation: OpenFederation, lease: Lease, owed: Work) -> RelayOrder:
    exchange = owed.exchange
    assert not isinstance(exchange, MessagesPushed)  # they travel over the bus alone
    trains = exchange.exchange == "train"
    return RelayOrder(
        work_id=owed.work_id,
        client_id=lease.client_id,
        lease_id=lease.lease_id,
        lease_epoch=lease.epoch,
        round_number=exchange.round_number,
        attempt=exchange.attempt,
        exchange=exchange.exchange,
        message_type="train" if trains else "evaluate",
        seed=exchange.cohort[owed.place].seed,
        config=exchange.config,
        base=exchange.base,
        upload=terms.upload_uri(federation.spec, exchange, lease.client_id) if trains else None,
        until=owed.until,
    )
