"""The virtual clients' membership: they join, and as long as they are alive they say so."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from typing import TypeVar

from flowerbed.aggregator.relay_works import LeaseWorks
from flowerbed.aggregator.simulation.errors import CannotSimulate
from flowerbed.aggregator.simulation.partitions import Partition
from flowerbed.contracts.relay import MOST_AT_ONCE, RelayMember
from flowerbed.contracts.simulation import client_name
from flowerbed.events.errors import Unavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")

JOIN_AT_ONCE = 100
"""In one transaction of the lease service."""
FIRST_WAIT, LAST_WAIT = 0.2, 5.0


async def stay(works: LeaseWorks, partitions: Sequence[Partition]) -> None:
    """Until the federation is over: who holds no lease, not yet or not any more, gets one.

    Raises:
        FederationOver: it is.
    """
    wait = FIRST_WAIT
    while True:
        try:
            pause = await _join_and_beat(works, partitions)
            wait = FIRST_WAIT
        except Unavailable as error:
            logger.warning("no sign of life can be given: %s", error)
            pause, wait = wait, min(2 * wait, LAST_WAIT)
        await asyncio.sleep(pause)


async def decline(works: LeaseWorks, n_clients: int, reason: CannotSimulate) -> None:
    """Every virtual client says why it cannot take part.

    Raises:
        FederationOver: nobody asks any more.
        Unavailable: nobody hears it now.
    """
    members = [
        RelayMember(client_id=client_name(number), code=reason.code, detail=reason.detail[:8000])
        for number in range(n_clients)
    ]
    for some in _parts(members, JOIN_AT_ONCE):
        await works.join(some)


async def _join_and_beat(works: LeaseWorks, partitions: Sequence[Partition]) -> float:
    """Seconds until the next sign of life is due."""
    seconds, missing = LAST_WAIT, []
    for some in _parts(partitions, MOST_AT_ONCE):
        held = await works.beat([one.client_id for one in some])
        there, seconds = frozenset(held.clients), held.heartbeat_seconds
        missing += [one for one in some if one.client_id not in there]
    for some in _parts(missing, JOIN_AT_ONCE):
        await works.join(
            [RelayMember(client_id=one.client_id, dataset=one.dataset) for one in some]
        )
    if missing:
        logger.info("%d virtual clients joined", len(missing))
    return seconds


def _parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
