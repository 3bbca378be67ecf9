"""What is measured when Prometheus asks, and at no other time: an idle stack pays nothing."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from flowerbed.events import dead_letters, metrics
from flowerbed.events.errors import FlowerbedError

if TYPE_CHECKING:
    from flowerbed.events.service import Shell

logger = logging.getLogger(__name__)

PATIENCE = 3.0


async def measure_all(shell: "Shell") -> None:
    """Who leads, what lies among the dead letters, and what the service itself measures."""
    held = set(shell.leadership.roles)
    for role in shell.roles:
        metrics.leads.labels(shell.service, role).set(role in held)
    works = (lambda: _count_letters(shell), *shell.measured)
    await asyncio.gather(*(_in_time(work) for work in works))


async def _count_letters(shell: "Shell") -> None:
    counts = dict.fromkeys(shell.consumers, 0) | await dead_letters.counted(shell.database)
    for consumer, n in counts.items():
        metrics.waiting_letters.labels(shell.service, consumer).set(n)


async def _in_time(work: Callable[[], Awaitable[None]]) -> None:
    """What cannot be measured now stays as it was; that it cannot is told by /readyz."""
    try:
        async with asyncio.timeout(PATIENCE):
            await work()
    except (TimeoutError, FlowerbedError) as error:
        logger.info("not measured: %s", error)
