"""Over a WebSocket, too, nobody asks more often than they may."""

import json
from typing import Any

import pytest

from flowerbed.gateway.rates import Rate
from tests.integration.gateway.conftest import Gateway
from tests.support.graphql_ws import Refused, Spoken, spoken

NAMES = "query ($name: String) { federations(name: $name) { nodes { name } } }"


@pytest.fixture
def more_settings() -> dict[str, Any]:
    return {"limit_requests": Rate(3, 3600)}


async def _ask(one: Spoken, name: str) -> dict[str, Any]:
    async for told in one.subscribe(NAMES, name=name):
        answer: dict[str, Any] = told
    return answer


async def test_what_is_asked_over_a_websocket_counts_and_is_checked(gateway: Gateway) -> None:
    async with spoken(gateway.http) as one:
        assert await _ask(one, "a") == {"federations": {"nodes": []}}
        with pytest.raises(Refused) as unkept:
            await _ask(one, "a\0b")
        assert await _ask(one, "b") == {"federations": {"nodes": []}}
        assert await _ask(one, "c") == {"federations": {"nodes": []}}
        with pytest.raises(Refused) as often:
            await _ask(one, "d")
    async with spoken(gateway.http) as another:
        with pytest.raises(Refused):
            await _ask(another, "e")

    assert unkept.value.errors[0]["extensions"]["code"] == "not-valid"
    told = often.value.errors[0]["extensions"]
    assert (told["code"], told["status"]) == ("too-many-requests", 429)
    assert told["retryAfter"] > 60, json.dumps(told)
