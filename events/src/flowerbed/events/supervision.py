"""Run work for as long as a service runs: again, with backoff, whenever it fails."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from flowerbed.events.dead_letters import describe
from flowerbed.events.errors import Unavailable
from flowerbed.events.relay import Fenced

logger = logging.getLogger(__name__)

FIRST_RESTART, LAST_RETRY, LAST_RESTART = 0.2, 1.0, 10.0
WELL_AFTER = 5.0


async def supervised(
    name: str,
    work: Callable[[], Awaitable[None]],
    stopping: asyncio.Event,
    failing: dict[str, str],
) -> None:
    """Until `work` returns or the service is stopping. What fails is said in `failing`, by name."""
    wait = FIRST_RESTART
    while not stopping.is_set():
        # Once it has run for a while it is well again.
        well = asyncio.get_running_loop().call_later(WELL_AFTER, failing.pop, name, None)
        began = time.monotonic()
        try:
            await work()
            return
        except (Unavailable, Fenced) as error:
            logger.warning("%s starts over: %s", name, error)
            longest = LAST_RETRY
        except Exception as error:
            logger.exception("%s failed and starts over", name)
            failing[name] = describe(error)
            longest = LAST_RESTART
        finally:
            well.cancel()
        if time.monotonic() - began > WELL_AFTER:
            wait = FIRST_RESTART
        await asyncio.sleep(min(wait, longest))
        wait = min(wait * 2, LAST_RESTART)
