"""One attempt to hand one event to one receiver, and what its answer means."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeAlias

import aiohttp

from flowerbed.gateway.feed import FeedEvent
from flowerbed.gateway.webhooks.signing import signed_headers
from flowerbed.gateway.webhooks.store import Active
from flowerbed.gateway.webhooks.targets import guarded_socket

LONGEST_RETRY_AFTER = 86_400.0
"""Seconds. A receiver may ask for a day of silence, not for more."""
GONE = 410


@dataclass(frozen=True, slots=True)
class Taken:
    """With any 2xx the receiver has it."""


@dataclass(frozen=True, slots=True)
class Failed:
    error: str
    retry_after: float = 0.0


@dataclass(frozen=True, slots=True)
class Gone:
    """The receiver wants nothing any more, and says so (410)."""


Outcome: TypeAlias = Taken | Failed | Gone


@asynccontextmanager
async def opened(timeout: float) -> AsyncIterator[aiohttp.ClientSession]:
    """No cookies, no proxies, no names kept: a host is looked up, and checked, at every connect."""
    connector = aiohttp.TCPConnector(
        limit=0, use_dns_cache=False, socket_factory=guarded_socket, keepalive_timeout=30
    )
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=timeout),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"user-agent": "flowerbed-webhooks/1"},
    ) as session:
        yield session


async def send(session: aiohttp.ClientSession, hook: Active, event: FeedEvent) -> Outcome:
    body = payload(event)
    headers = signed_headers(hook.secret, event.id, datetime.now(UTC), body)
    headers["content-type"] = "application/json"
    try:
        async with session.post(
            hook.url, data=body.encode(), headers=headers, allow_redirects=False
        ) as answer:
            return _outcome(answer)
    except TimeoutError:
        return Failed("no answer in time")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return Failed(f"not reached: {error or type(error).__name__}"[:300])


def payload(event: FeedEvent) -> str:
    """The event as the feed has it, with the `timestamp` that Standard Webhooks asks for."""
    content = event.model_dump(mode="json")
    ordered = {"type": content["type"], "timestamp": content["recorded_at"], **content}
    return json.dumps(ordered, separators=(",", ":"), ensure_ascii=False)


def _outcome(answer: aiohttp.ClientResponse) -> Outcome:
    if 200 <= answer.status < 300:
        return Taken()
    if answer.status == GONE:
        return Gone()
    redirects = "; redirects are not followed" if 300 <= answer.status < 400 else ""
    wait = seconds_to_wait(answer.headers.get("retry-after", ""), datetime.now(UTC))
    return Failed(f"answered {answer.status}{redirects}", wait)


def seconds_to_wait(retry_after: str, now: datetime) -> float:
    """A number of seconds, or a date; 0 of what is neither."""
    if retry_after.isascii() and retry_after.isdigit():
        wait = float(retry_after[:9])
    else:
        try:
            wait = (parsedate_to_datetime(retry_after) - now).total_seconds()
        except (TypeError, ValueError):
            return 0.0
    return min(max(wait, 0.0), LONGEST_RETRY_AFTER)
