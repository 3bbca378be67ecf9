"""The stack's lock: whoever holds it is its supervisor, or ends what one has left."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from flowerbed.embedded.layout import Layout


@contextmanager
def held(layout: Layout) -> Iterator[bool]:
    """False if somebody else has it. The kernel frees it when we end, in whatever way."""
    with layout.lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
