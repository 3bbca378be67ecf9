"""Reads server-sent events as a browser does."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True, slots=True)
class Sent:
    id: str | None
    event: str
    data: Any


@asynccontextmanager
async def subscribed(
    http: httpx.AsyncClient, path: str, *, last: str | None = None, **params: Any
) -> AsyncIterator[AsyncIterator[Sent]]:
    """What the server sends; signs of life are left out."""
    headers = {"accept": "text/event-stream"} | ({"last-event-id": last} if last else {})
    async with http.stream("GET", path, params=params, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield _sent(answer)


async def _sent(answer: httpx.Response) -> AsyncIterator[Sent]:
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            if "data" in fields:
                yield Sent(fields.get("id"), fields["event"], json.loads(fields["data"]))
            fields = {}


def merged(before: Any, patch: Any) -> Any:
    """RFC 7386, section 2."""
    if not isinstance(patch, dict):
        return patch
    result = dict(before) if isinstance(before, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result
