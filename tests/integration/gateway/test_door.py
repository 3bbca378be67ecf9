"""How often and how much anybody may send, and what nonsense comes to."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.story import FED, document
from tests.support.issuer import TestIssuer, issuer

BODY = 4096


@pytest.fixture
async def people() -> AsyncIterator[TestIssuer]:
    async with issuer() as made:
        yield made


@pytest.fixture
def more_settings(people: TestIssuer) -> dict[str, Any]:
    return {
        "issuers": [people.settings().model_dump()],
        "limit_requests": "20/hour",
        "limit_commands": "10/hour",
        "limit_strangers": "4/hour",
        "limit_body_bytes": BODY,
    }


def bearer(people: TestIssuer, name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {people.token(sub=name, flowerbed_roles={'*': 'admin'})}"}


async def test_a_principal_asks_as_often_as_its_rate_says_and_the_others_go_on(
    gateway: Gateway, people: TestIssuer
) -> None:
    alice = bearer(people, "alice")
    answers = [await gateway.http.get("/federations", headers=alice) for _ in range(21)]
    assert [answer.status_code for answer in answers] == [200] * 20 + [429]
    assert answers[0].headers["ratelimit-policy"] == '"default";q=20;w=3600'
    assert answers[0].headers["ratelimit"] == '"default";r=19'
    refused = answers[-1]
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["code"] == "too-many-requests"
    assert 1 <= int(refused.headers["retry-after"]) <= 181
    assert refused.headers["ratelimit"].startswith('"default";r=0;t=')
    assert (await gateway.http.get("/federations")).status_code == 200, "the local token is another"
    bob = await gateway.http.get("/federations", headers=bearer(people, "bob"))
    assert bob.status_code == 200


async def test_commands_have_a_rate_of_their_own_and_health_has_none(gateway: Gateway) -> None:
    answers = [await gateway.http.post("/federations", json={}) for _ in range(12)]
    assert [answer.status_code for answer in answers] == [422] * 10 + [429] * 2
    assert (await gateway.http.get("/federations")).status_code == 200
    for _ in range(30):
        assert (await gateway.http.get("/healthz")).status_code == 200
    rows = (await gateway.http.get("/audit")).json()["rows"]
    assert [row["status"] for row in rows] == [429] + [422] * 10, "one row for all that are refused"


async def test_guessing_tokens_is_slow(gateway: Gateway) -> None:
    address = str(gateway.http.base_url)
    async with httpx.AsyncClient(base_url=address) as stranger:
        statuses = [
            (
                await stranger.get(
                    "/federations", headers={"authorization": f"Bearer guess-{number}"}
                )
            ).status_code
            for number in range(6)
        ]
    assert statuses == [401] * 4 + [429] * 2
    assert (await gateway.http.get("/federations")).status_code == 200


async def chunks(size: int, count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b" " * size


async def test_a_body_above_the_limit_is_refused_however_it_is_sent(gateway: Gateway) -> None:
    for path in ("/federations", f"/federations/{FED}/policy", "/clients/invites", "/nowhere"):
        for content in (b" " * (BODY + 1), chunks(1000, 5)):
            answer = await gateway.http.post(path, content=content)
            assert (answer.status_code, answer.json()["code"]) == (413, "body-too-large"), path
    assert gateway.behind.asked == []


async def test_a_body_within_the_limit_arrives_whole(gateway: Gateway) -> None:
    raw = json.dumps(document()).encode()
    raw += b" " * (BODY - len(raw))

    async def in_parts() -> AsyncIterator[bytes]:
        for begin in range(0, BODY, 1000):
            yield raw[begin : begin + 1000]

    for content in (raw, in_parts()):
        answer = await gateway.http.post("/federations", content=content)
        assert answer.status_code == 202, answer.text
