"""What the bridge does about other services' facts: remember them, and wake the exchange."""

from collections.abc import Callable
from functools import partial
from typing import Any

from flowerbed.aggregator.exchanges import AllExchanges
from flowerbed.aggregator.projections.exchanges import (
    end_federation,
    remember_exchange,
    remember_federation,
    remember_policy,
    remember_replacement,
    streams_of,
    terms_of,
)
from flowerbed.aggregator.projections.messages import remember_answer
from flowerbed.aggregator.projections.submissions import (
    remember_report,
    stream_of,
    streams_with_late,
)
from flowerbed.contracts.catalogue import EVENTS
from flowerbed.contracts.federation import (
    FederationCancelled,
    FederationCompleted,
    FederationCreated,
    FederationFailed,
    FederationPolicyChanged,
)
from flowerbed.contracts.round import (
    ExchangeStarted,
    RoundEvaluationStarted,
    RoundMemberReplaced,
    RoundStarted,
)
from flowerbed.contracts.server_app import MessageAnswered, ServerAppStarted
from flowerbed.contracts.update import UpdateFailed, UpdateSubmitted
from flowerbed.events.codec import Codec
from flowerbed.events.connection import Connection
from flowerbed.events.consumer import Consumer
from flowerbed.events.database import after_commit
from flowerbed.events.recorded import Recorded


def consumers(
    exchanges: AllExchanges, wake_simulation: Callable[[str], None]
) -> tuple[Consumer, Consumer]:
    """Of the orchestrator's facts, and of the lease service's."""

    async def on_federation_created(tx: Connection, recorded: Recorded[FederationCreated]) -> None:
        await remember_federation(tx, recorded)
        await remember_exchange(tx, recorded)
        wake(recorded.event.federation_id, terms_of(recorded.event).stream)
        after_commit(partial(wake_simulation, recorded.event.federation_id))

    async def on_policy_changed(
        tx: Connection, recorded: Recorded[FederationPolicyChanged]
    ) -> None:
        await remember_policy(tx, recorded.event)

    async def on_exchange_started(tx: Connection, recorded: Recorded[ExchangeStarted]) -> None:
        await remember_exchange(tx, recorded)
        federation_id = recorded.event.federation_id
        late = await streams_with_late(tx, federation_id)
        wake(federation_id, terms_of(recorded.event).stream, *late)

    async def on_serving(tx: Connection, recorded: Recorded[ServerAppStarted]) -> None:
        await remember_exchange(tx, recorded)
        wake(recorded.event.federation_id, terms_of(recorded.event).stream)

    async def on_member_replaced(tx: Connection, recorded: Recorded[RoundMemberReplaced]) -> None:
        wake(recorded.event.federation_id, await remember_replacement(tx, recorded.event))

    async def on_federation_ended(tx: Connection, recorded: Recorded[Any]) -> None:
        federation_id = recorded.event.federation_id
        await end_federation(tx, federation_id)
        after_commit(partial(exchanges.drop, federation_id))
        after_commit(partial(wake_simulation, federation_id))
        # Of each: a report may be recorded meanwhile, which this transaction does not see.
        wake(federation_id, *await streams_of(tx, federation_id))

    async def on_report(tx: Connection, recorded: Recorded[Any]) -> None:
        await remember_report(tx, recorded)
        event = recorded.event
        wake(event.federation_id, stream_of(event))
        # A later exchange may list the work, and be recorded while this is.
        after_commit(partial(exchanges.wake_workers, event.federation_id))

    async def on_message_answered(tx: Connection, recorded: Recorded[MessageAnswered]) -> None:
        await remember_answer(tx, recorded)
        after_commit(partial(exchanges.wake_workers, recorded.event.federation_id))

    def wake(federation_id: str, *streams: str) -> None:
        for stream in streams:
            after_commit(partial(exchanges.wake, federation_id, stream))

    codec = Codec(EVENTS)
    return (
        Consumer(
            "orchestrator",
            "FL_ORCHESTRATOR",
            {
                FederationCreated: on_federation_created,
                FederationPolicyChanged: on_policy_changed,
                RoundStarted: on_exchange_started,
                RoundMemberReplaced: on_member_replaced,
                RoundEvaluationStarted: on_exchange_started,
                ServerAppStarted: on_serving,
                FederationCompleted: on_federation_ended,
                FederationFailed: on_federation_ended,
                FederationCancelled: on_federation_ended,
            },
            codec,
        ),
        Consumer(
            "lease",
            "FL_LEASE",
            {
                UpdateSubmitted: on_report,
                UpdateFailed: on_report,
                MessageAnswered: on_message_answered,
            },
            codec,
        ),
    )
