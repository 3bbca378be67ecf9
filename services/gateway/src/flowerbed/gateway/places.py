"""Cursors of listings: the place of a row in the listing's order, as text that people pass on."""

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any

from flowerbed.gateway.cursors import CursorUnreadable

LONGEST_CURSOR = 1000


def encoded_place(place: str) -> str:
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def decoded_place(cursor: str | None, order: Sequence[tuple[str, str]]) -> str | None:
    """As JSON for Postgres, which will cast each part to the type of its column.

    Raises:
        CursorUnreadable: it is no place in that order.
    """
    if cursor is None:
        return None
    try:
        padded = cursor[:LONGEST_CURSOR] + "=" * (-len(cursor) % 4)
        place = json.loads(base64.urlsafe_b64decode(padded))
    except (ValueError, binascii.Error):
        place = None
    is_place = isinstance(place, list) and len(place) == len(order)
    if not is_place or not all(
        _fits(part, kind) for part, (_, kind) in zip(place, order, strict=True)
    ):
        raise CursorUnreadable(f"cursor {cursor[:80]!r} was not given out here")
    return json.dumps(place)


def _fits(part: Any, kind: str) -> bool:
    if kind == "text":
        return isinstance(part, str) and "\0" not in part
    return type(part) is int and 0 <= part < 2 ** (63 if kind == "bigint" else 31)
