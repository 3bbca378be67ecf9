"""Waiting for the other side: away is not an error, it comes back."""

import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type
from tenacity.stop import stop_base

from flowerbed.runner import clock
from flowerbed.runner.errors import NotReachable

logger = logging.getLogger(__name__)

T = TypeVar("T")
FIRST_PAUSE = 0.2
SHORT_PAUSE = 4.0
LONG_PAUSE = 30.0
LONG_AFTER = 40
"""After as many tries, some two minutes, there is no hurry any more."""
LONGEST_RETRY_AFTER = 300.0


class _StopAt(stop_base):
    """Stop when the control plane's clock has passed a moment; None is never."""

    def __init__(self, until: float | None) -> None:
        self._until = until

    def __call__(self, retry_state: RetryCallState) -> bool:
        return self._until is not None and clock.now() + retry_state.upcoming_sleep > self._until


def pause(tries: int) -> float:
    """Seconds before the next try: doubled each time, with jitter so that sites do not march."""
    longest = SHORT_PAUSE if tries < LONG_AFTER else LONG_PAUSE
    top = min(longest, FIRST_PAUSE * 2.0 ** min(tries, 16))
    return top / 2 + random.random() * top / 2


def _wait(retry_state: RetryCallState) -> float:
    error = retry_state.outcome.exception() if retry_state.outcome else None
    asked = error.retry_after if isinstance(error, NotReachable) else None
    wanted = pause(retry_state.attempt_number - 1)
    if asked is None:
        return wanted
    # The other side knows best when; the jitter keeps everybody from coming back at once.
    return min(float(asked), LONGEST_RETRY_AFTER) + wanted / 4


async def patiently(
    call: Callable[[], Awaitable[T]],
    *,
    until: float | None = None,
    on_wait: Callable[[NotReachable], None] | None = None,
) -> T:
    """Call until somebody answers, or until the control plane's clock reaches `until`.

    Raises:
        NotReachable: nobody had answered by then.
    """

    def before_sleep(retry_state: RetryCallState) -> None:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        if isinstance(error, NotReachable):
            if retry_state.attempt_number in (1, 10) or retry_state.attempt_number % 100 == 0:
                logger.warning("waiting: %s (try %d)", error, retry_state.attempt_number)
            if on_wait is not None:
                on_wait(error)

    retrying = AsyncRetrying(
        retry=retry_if_exception_type(NotReachable),
        wait=_wait,
        stop=_StopAt(until),
        before_sleep=before_sleep,
        reraise=True,
    )

    async def once() -> T:
        return await call()  # tenacity awaits what it can see to be a coroutine function

    return await retrying(once)
