"""What the artifact service does about the bridge's facts: note what is to be read back."""

from functools import partial

from flowerbed.artifact.projections.verifications import remember
from flowerbed.artifact.verifier import Verifier
from flowerbed.contracts.aggregate import AggregateCompleted
from flowerbed.events.codec import Codec
from flowerbed.events.connection import Connection
from flowerbed.events.consumer import Consumer
from flowerbed.events.database import after_commit
from flowerbed.events.recorded import Recorded


def aggregator_consumer(verifier: Verifier) -> Consumer:
    async def on_aggregate_completed(
        tx: Connection, recorded: Recorded[AggregateCompleted]
    ) -> None:
        if recorded.event.checkpoint is not None:
            await remember(tx, recorded)
            after_commit(partial(verifier.wake, recorded.event.federation_id))

    return Consumer(
        "aggregator",
        "FL_AGGREGATOR",
        {AggregateCompleted: on_aggregate_completed},
        Codec([AggregateCompleted]),
    )
