"""Server-sent events: frames, signs of life, and where a broken connection goes on."""

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, TypeAlias

from fastapi import Header
from fastapi.responses import StreamingResponse

from flowerbed.events.errors import Rejected

MEDIA_TYPE = "text/event-stream"
ALIVE = b": alive\n\n"
RETRY = b"retry: 1000\n\n"
"""Milliseconds after which a browser connects again by itself."""
LARGEST_POSITION = 2**63 - 1

LastEventId: TypeAlias = Annotated[
    str | None,
    Header(alias="Last-Event-ID", description="The last position seen; it wins over `after`."),
]


class PositionUnreadable(Rejected):
    code = "position-unreadable"
    status = 400


def frame(event: str, data: Any, position: int | None = None) -> bytes:
    head = f"id: {position}\n" if position is not None else ""
    body = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return f"{head}event: {event}\ndata: {body}\n\n".encode()


def stream(frames: AsyncIterator[bytes]) -> StreamingResponse:
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_begun(frames), media_type=MEDIA_TYPE, headers=headers)


def resumed(last_event_id: str | None, after: int) -> int:
    """Where to go on: behind what was seen last, or where the address says.

    Raises:
        PositionUnreadable: the header holds no position that was given out here.
    """
    if not last_event_id:
        return after
    if not last_event_id.isascii() or not last_event_id.isdigit():
        raise PositionUnreadable(f"Last-Event-ID {last_event_id[:40]!r} is not a position")
    return min(int(last_event_id[:20]), LARGEST_POSITION)


async def _begun(frames: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield RETRY
    async for one in frames:
        yield one
