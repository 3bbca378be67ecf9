"""Garbage collection in small portions.

A collection looks at everything that was made since the one before and is still there. Where a
thousand clients wait, that is all of their requests: 0.2 to 0.3 s, several times a minute, in which
nobody is answered. So what is young is looked at often, when it is little, and is then set aside.
What is in no cycle is freed at once anyway; a cycle that was set aside is found within the hour.
"""

import asyncio
import gc

PORTION = 0.5
WHOLE = 3600.0


async def collect_in_portions(portion: float = PORTION, whole: float = WHOLE) -> None:
    """Until cancelled: what is young every `portion` seconds, everything every `whole` seconds."""
    loop = asyncio.get_running_loop()
    while True:
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        end = loop.time() + whole
        while loop.time() < end:
            await asyncio.sleep(portion)
            gc.collect(0)
            gc.freeze()
