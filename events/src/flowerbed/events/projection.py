"""A projection folds recorded events into tables that it alone owns.

It runs in the transaction of the append (an inline projection), so a read model is never
behind its own store. Only `tx` goes in: no clock (`recorded.recorded_at` is the time), no
network, no events out. Table names are written without a schema, so that a rebuild can fill
tables of the same names beside the live ones.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from flowerbed.events.connection import Connection
from flowerbed.events.recorded import Recorded

Apply: TypeAlias = Callable[[Connection, Recorded[Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Projection:
    name: str
    tables: tuple[str, ...]
    apply: Apply
