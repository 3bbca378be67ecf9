"""What deciders' streams have come to: each is folded once, and then only what is new in it.

A stream is only ever appended to, so what it came to at a version stays true. Only what is
committed is kept here; what was lost or forgotten is folded again from the first event.
Other things that are read often and never change once they are written may be kept beside them.
"""

from collections import OrderedDict
from typing import Any, TypeAlias

MOST_EVENTS = 100_000
"""Events that all kept states were folded from, together: a state grows with its events."""

Key: TypeAlias = tuple[int | str, str, str]
"""The decider (by identity: they live as long as the process), the tenant, the stream."""


class States:
    """The most recently used ones."""

    def __init__(self, most_events: int = MOST_EVENTS) -> None:
        self._most_events = most_events
        self._n_events = 0
        self._kept: OrderedDict[Key, tuple[int, Any]] = OrderedDict()

    def find(self, key: Key) -> tuple[int, Any] | None:
        """The version of the last event folded, and the state."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def keep(self, key: Key, version: int, state: Any) -> None:
        """Unless more of the stream has been kept meanwhile."""
        known = self._kept.get(key)
        if known is not None and known[0] >= version:
            return
        self.forget(key)
        self._kept[key] = version, state
        self._n_events += version
        while self._n_events > self._most_events:
            self.forget(next(iter(self._kept)))

    def forget(self, key: Key) -> None:
        version, _ = self._kept.pop(key, (0, None))
        self._n_events -= version
