"""When the gateway says that we ask too often: wait as long as it says, and say so."""

import time
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    import httpx

LONGEST_WAIT = 300.0
"""Seconds, over all the waits of one call."""


class Waits:
    """Those of one call."""

    def __init__(self) -> None:
        self._left = LONGEST_WAIT

    def wait(self, answer: "httpx.Response") -> bool:
        """True if the call may be made again now; False if it has waited long enough."""
        if answer.status_code != 429:
            return False
        told = answer.headers.get("retry-after", "")
        seconds = float(told) if told.isdecimal() else 1.0
        if seconds > self._left:
            return False
        self._left -= max(seconds, 0.1)
        typer.echo(f"the gateway is asked too often; waiting {seconds:g} s", err=True)
        time.sleep(seconds)
        return True
