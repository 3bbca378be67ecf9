"""What a strategy has kept of the rounds before: found by the checkpoint that it was kept with."""

from typing import ClassVar

from flowerbed.aggregator.bridge import Bridge
from flowerbed.aggregator.projections.exchanges import Asked
from flowerbed.aggregator.projections.outcomes import streams_that_trained
from flowerbed.contracts.aggregate import AggregateCompleted
from flowerbed.contracts.strategies import WITH_STATE
from flowerbed.contracts.values import ArtifactRef, Sha256
from flowerbed.events.errors import Rejected


class StateUnknown(Rejected):
    code: ClassVar[str] = "state-unknown"


async def moments_before(bridge: Bridge, asked: Asked) -> ArtifactRef | None:
    """The moments with which the exchange's base was made; None in the first round.

    Raises:
        StateUnknown: no aggregate of the round before made that base.
    """
    started = asked.started
    assert started is not None
    before = started.round_number - 1
    if asked.spec.spec.strategy.name not in WITH_STATE or not before:
        return None
    return await moments_with(bridge, asked, before)


async def moments_with(bridge: Bridge, asked: Asked, made_in: int) -> ArtifactRef | None:
    """What was kept with the exchange's base, which that round made.

    Raises:
        StateUnknown: no aggregate of the round made that base.
    """
    started = asked.started
    assert started is not None
    base = started.base.sha256
    for stream in await streams_that_trained(bridge.database, started.federation_id, made_in):
        async with bridge.database.transaction(asked.context.tenant) as tx:
            history = [recorded.event for recorded in await bridge.store.read(tx, stream)]
        for event in history:
            if isinstance(event, AggregateCompleted) and _is(event.checkpoint, base):
                return event.moments
    raise StateUnknown(f"no aggregate of round {made_in} made the base {base}")


def _is(checkpoint: ArtifactRef | None, sha256: Sha256) -> bool:
    return checkpoint is not None and checkpoint.sha256 == sha256
