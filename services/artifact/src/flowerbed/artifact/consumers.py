"""What the artifact service does about others' facts: note what is to be read back, and where the
spans of a federation go."""

from functools import partial

from flowerbed.artifact.projections import federations
from flowerbed.artifact.projections.verifications import remember
from flowerbed.artifact.verifier import Verifier
from flowerbed.contracts.aggregate import AggregateCompleted
from flowerbed.contracts.federation import FederationCreated
from flowerbed.events.codec import Codec
from flowerbed.events.connection import Connection
from flowerbed.events.consumer import Consumer
from flowerbed.events.database import after_commit
from flowerbed.events.recorded import Recorded


def consumers(verifier: Verifier) -> tuple[Consumer, Consumer]:
    """Of the bridge's facts, and of the orchestrator's."""

    async def on_aggregate_completed(
        tx: Connection, recorded: Recorded[AggregateCompleted]
    ) -> None:
        if recorded.event.checkpoint is not None:
            await remember(tx, recorded)
            after_commit(partial(verifier.wake, recorded.event.federation_id))

    return (
        Consumer(
            "aggregator",
            "FL_AGGREGATOR",
            {AggregateCompleted: on_aggregate_completed},
            Codec([AggregateCompleted]),
        ),
        Consumer(
            "orchestrator",
            "FL_ORCHESTRATOR",
            {FederationCreated: federations.remember},
            Codec([FederationCreated]),
        ),
    )
