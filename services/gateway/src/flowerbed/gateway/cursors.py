"""Where a listing goes on: an opaque text of the last row's own key."""

import base64
import binascii
import json
from datetime import datetime
from typing import Any

from flowerbed.events.errors import Rejected
from flowerbed.gateway.paths import in_utc


class CursorUnreadable(Rejected):
    code = "cursor-unreadable"
    status = 400


def moment(text: str) -> datetime:
    return in_utc(datetime.fromisoformat(text))


def encoded(*parts: str) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


def parsed(text: str, first: Any) -> tuple[Any, str]:
    try:
        head, last = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if b"\0" in f"{head}{last}".encode():  # half a surrogate pair fails here already
            raise ValueError("Postgres cannot look for that")
        return first(head), str(last)
    except (ValueError, TypeError, binascii.Error) as error:
        raise CursorUnreadable(f"cursor {text[:80]!r} was not given out here") from error
