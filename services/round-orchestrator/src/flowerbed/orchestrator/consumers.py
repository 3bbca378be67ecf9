"""What other services' facts make the orchestrator do, one function an event type."""

from dataclasses import dataclass

from flowerbed.contracts.aggregate import AggregateCompleted, AggregateFailed
from flowerbed.contracts.artifact import ArtifactRecorded
from flowerbed.contracts.client import ClientDropped, ClientJoined, ClientReleased
from flowerbed.contracts.server_app import MessagesPushed
from flowerbed.events.codec import Codec
from flowerbed.events.consumer import Consumer
from flowerbed.events.database import Connection
from flowerbed.events.store import Recorded
from flowerbed.orchestrator import membership
from flowerbed.orchestrator.commanding import Federations, Situation
from flowerbed.orchestrator.commands import (
    Command,
    CompleteEvaluation,
    FailExchange,
    OpenRound,
    RecordCheckpoint,
    ReplaceMembers,
)


def _open_round(now: Situation) -> Command:
    return OpenRound(base=now.base, pool=now.pool, at=now.at)


def _replace(now: Situation) -> Command:
    return ReplaceMembers(pool=now.pool, at=now.at)


@dataclass(frozen=True, slots=True)
class Reactions:
    federations: Federations

    async def on_joined(self, tx: Connection, recorded: Recorded[ClientJoined]) -> None:
        event = recorded.event
        await membership.lock(tx, event.federation_id)
        await membership.join(tx, recorded.context.tenant, event)
        makes = [_open_round]
        if await self.federations.is_upgraded(tx):
            makes.append(_replace)  # who left the open training
        context = recorded.consequence()
        await self.federations.commands(tx, event.federation_id, makes, context)

    async def on_left(
        self, tx: Connection, recorded: Recorded[ClientDropped | ClientReleased]
    ) -> None:
        event = recorded.event
        await membership.lock(tx, event.federation_id)
        await membership.leave(tx, event.federation_id, event.client_id, event.epoch)
        if await self.federations.is_upgraded(tx):
            context = recorded.consequence()
            await self.federations.command(tx, event.federation_id, _replace, context)

    async def on_aggregate(self, tx: Connection, recorded: Recorded[AggregateCompleted]) -> None:
        """A trained checkpoint counts when it is recorded; an evaluation at once."""
        event = recorded.event
        if event.exchange != "evaluate":
            return

        def make(now: Situation) -> Command:
            return CompleteEvaluation(
                round_number=event.round_number,
                attempt=event.attempt,
                metrics=event.metrics,
                pool=now.pool,
                at=now.at,
            )

        await self.federations.command(tx, event.federation_id, make, recorded.consequence())

    async def on_aggregate_failed(
        self, tx: Connection, recorded: Recorded[AggregateFailed]
    ) -> None:
        event = recorded.event

        def make(now: Situation) -> Command:
            return FailExchange(
                round_number=event.round_number,
                attempt=event.attempt,
                exchange=event.exchange,
                code=event.code,
                reason=event.reason,
                pool=now.pool,
                at=now.at,
            )

        await self.federations.command(tx, event.federation_id, make, recorded.consequence())

    async def on_messages(self, tx: Connection, recorded: Recorded[MessagesPushed]) -> None:
        event = recorded.event
        tenant = recorded.context.tenant
        await membership.hear(tx, tenant, event.federation_id, event.deadline_at)

    async def on_artifact(self, tx: Connection, recorded: Recorded[ArtifactRecorded]) -> None:
        event, context = recorded.event, recorded.consequence()
        if event.kind == "base":
            await membership.lock(tx, event.federation_id)
            await membership.set_base(tx, context.tenant, event.federation_id, event.artifact)
            await self.federations.command(tx, event.federation_id, _open_round, context)
        elif event.kind == "checkpoint":

            def make(now: Situation) -> Command:
                return RecordCheckpoint(
                    round_number=event.round_number,
                    attempt=event.attempt,
                    checkpoint=event.artifact,
                    n_updates=event.n_updates,
                    training=event.metrics,
                    pool=now.pool,
                    at=now.at,
                    owing=event.owing if now.is_upgraded else (),
                )

            await self.federations.command(tx, event.federation_id, make, context)


def consumers(federations: Federations, codec: Codec) -> list[Consumer]:
    """One for each owner whose facts matter here."""
    reactions = Reactions(federations)
    return [
        Consumer(
            "clients",
            "FL_LEASE",
            {
                ClientJoined: reactions.on_joined,
                ClientDropped: reactions.on_left,
                ClientReleased: reactions.on_left,
            },
            codec,
        ),
        Consumer(
            "aggregates",
            "FL_AGGREGATOR",
            {
                AggregateCompleted: reactions.on_aggregate,
                AggregateFailed: reactions.on_aggregate_failed,
                MessagesPushed: reactions.on_messages,
            },
            codec,
        ),
        Consumer("artifacts", "FL_ARTIFACT", {ArtifactRecorded: reactions.on_artifact}, codec),
    ]
