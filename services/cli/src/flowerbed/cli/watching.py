"""Looking again and again, and telling what differs: what `--watch` of every command does."""

import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypeAlias, TypeVar

import typer

from flowerbed.cli.failing import Unreachable

INTERVAL = 1.0
"""Seconds."""

T = TypeVar("T")

Watch: TypeAlias = Annotated[
    bool, typer.Option("--watch", "-w", help="Stay, and tell it again when it changes.")
]


def changes(
    look: Callable[[], T], gist: Callable[[T], Any], is_over: Callable[[T], bool] = lambda _: False
) -> Iterator[T]:
    """Each answer whose gist differs from the one before. A gateway that is away is waited for."""
    before: Any = object()
    is_away = False
    while True:
        try:
            found = look()
        except Unreachable as error:
            if not is_away:
                typer.echo(f"waiting: {error}", err=True)
            is_away = True
        else:
            is_away = False
            if (now := gist(found)) != before:
                before = now
                yield found
            if is_over(found):
                return
        time.sleep(INTERVAL)
