"""What the orchestrator's facts make the lease service do, one function an event type."""

from dataclasses import dataclass
from functools import partial

from flowerbed.contracts.federation import (
    FederationCancelled,
    FederationCompleted,
    FederationCreated,
    FederationFailed,
)
from flowerbed.contracts.round import (
    RoundCompleted,
    RoundEvaluationStarted,
    RoundFailed,
    RoundMemberReplaced,
    RoundStarted,
)
from flowerbed.contracts.server_app import MessagesPushed
from flowerbed.events.codec import Codec
from flowerbed.events.consumer import Consumer
from flowerbed.events.database import Connection, after_commit
from flowerbed.events.store import EventStore, Recorded
from flowerbed.lease import federations, work
from flowerbed.lease.leases import ReleaseLease
from flowerbed.lease.leaving import leave, miss
from flowerbed.lease.projections.leases import not_held, open_in
from flowerbed.lease.waiting import Waiting


@dataclass(frozen=True, slots=True)
class Reactions:
    store: EventStore
    waiting: Waiting

    async def on_created(self, tx: Connection, recorded: Recorded[FederationCreated]) -> None:
        tenant = recorded.context.tenant
        await federations.remember(tx, tenant, recorded.event)
        after_commit(partial(self.waiting.wake, tenant))

    async def on_exchange(
        self, tx: Connection, recorded: Recorded[RoundStarted | RoundEvaluationStarted]
    ) -> None:
        await work.open_exchange(tx, recorded)
        asked = [member.lease_id for member in recorded.event.cohort]
        for lease_id in await not_held(tx, asked):
            await miss(tx, self.store, lease_id, recorded.consequence())
        for key in (*asked, recorded.event.federation_id):
            after_commit(partial(self.waiting.wake, key))

    async def on_messages(self, tx: Connection, recorded: Recorded[MessagesPushed]) -> None:
        if await federations.find(tx, recorded.event.federation_id) is None:
            return  # it has ended meanwhile
        await work.open_beside(tx, recorded)
        asked = [message.lease_id for message in recorded.event.cohort]
        for lease_id in await not_held(tx, asked):
            await miss(tx, self.store, lease_id, recorded.consequence())
        for lease_id in asked:
            after_commit(partial(self.waiting.wake, lease_id))

    async def on_replaced(self, tx: Connection, recorded: Recorded[RoundMemberReplaced]) -> None:
        if await work.replace_member(tx, recorded):
            for key in (recorded.event.replacement.lease_id, recorded.event.federation_id):
                after_commit(partial(self.waiting.wake, key))

    async def on_completed(self, tx: Connection, recorded: Recorded[RoundCompleted]) -> None:
        await work.close(tx, recorded.event.federation_id, keep=recorded.event.owed)
        after_commit(partial(self.waiting.wake, recorded.event.federation_id))

    async def on_failed(self, tx: Connection, recorded: Recorded[RoundFailed]) -> None:
        await work.close_attempt(tx, recorded.event)
        after_commit(partial(self.waiting.wake, recorded.event.federation_id))

    async def on_ended(
        self,
        tx: Connection,
        recorded: Recorded[FederationCompleted | FederationFailed | FederationCancelled],
    ) -> None:
        """The federation is over: every lease in it ends in order."""
        event = recorded.event
        await work.close(tx, event.federation_id)
        await federations.forget(tx, event.federation_id)
        after_commit(partial(self.waiting.wake, event.federation_id))
        reason = event.type.rsplit(".", 1)[-1]
        for one in await open_in(tx, event.federation_id):
            command = ReleaseLease(epoch=None, reason=f"federation {reason}")
            await leave(tx, self.store, one.lease_id, command, recorded.consequence())
            after_commit(partial(self.waiting.wake, one.lease_id))


def consumers(store: EventStore, waiting: Waiting, codec: Codec) -> tuple[Consumer, Consumer]:
    """Of the orchestrator's facts, and of a whole ServerApp's messages."""
    reactions = Reactions(store, waiting)
    messages = Consumer("messages", "FL_AGGREGATOR", {MessagesPushed: reactions.on_messages}, codec)
    rounds = Consumer(
        "rounds",
        "FL_ORCHESTRATOR",
        {
            FederationCreated: reactions.on_created,
            RoundStarted: reactions.on_exchange,
            RoundEvaluationStarted: reactions.on_exchange,
            RoundMemberReplaced: reactions.on_replaced,
            RoundCompleted: reactions.on_completed,
            RoundFailed: reactions.on_failed,
            FederationCompleted: reactions.on_ended,
            FederationFailed: reactions.on_ended,
            FederationCancelled: reactions.on_ended,
        },
        codec,
    )
    return rounds, messages
