"""Log lines at the lease service: once, of the lease's own client, bounded, read by position."""

import uuid
from datetime import timedelta
from typing import Any

import httpx
import pytest

from flowerbed.lease import log_lines
from flowerbed.lease.log_lines import forget_before
from tests.integration.lease.clients import DATASET, Client
from tests.integration.lease.conftest import FED, House

RUN = uuid.uuid4().hex


async def say(
    house: House, client: Client, lease: dict[str, Any], *texts: str, first: int = 1, **more: Any
) -> httpx.Response:
    at = house.clock.now().isoformat()
    lines = [{"number": number, "at": at, "text": text} for number, text in enumerate(texts, first)]
    body = {"epoch": lease["epoch"], "run": RUN, "lines": lines, **more}
    return await client.ask(f"/v1/leases/{lease['lease_id']}/logs", body)


async def read(house: House, **params: Any) -> dict[str, Any]:
    path = f"/internal/federations/{FED}/logs"
    answer = await house.internal.get(path, params={"tenant": "acme", **params})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def texts(house: House, **params: Any) -> list[str]:
    return [line["text"] for line in (await read(house, **params))["lines"]]


@pytest.fixture
async def client(house: House) -> Client:
    client = await house.client()
    await house.create()
    return client


async def test_lines_are_kept_once_and_read_on_from_a_position(
    house: House, client: Client
) -> None:
    lease = await client.joined()
    assert (await say(house, client, lease, "one", "two")).status_code == 200
    assert (await say(house, client, lease, "one", "two", "three")).status_code == 200

    page = await read(house)
    assert [line["text"] for line in page["lines"]] == ["one", "two", "three"]
    assert {(line["client_id"], line["label"]) for line in page["lines"]} == {
        (client.client_id, DATASET["label"])
    }
    assert page["is_open"] and not page["clients"][0]["keeps_lines"]
    await say(house, client, lease, "four", first=4)
    assert await texts(house, after=page["next_after"]) == ["four"]
    assert await texts(house, tail=2) == ["three", "four"]
    assert await house.rows("SELECT 1 FROM events WHERE type LIKE '%log%'") == []


async def test_a_client_is_found_by_id_label_or_how_it_begins(house: House, client: Client) -> None:
    lease = await client.joined()
    await say(house, client, lease, "one")
    for name in (client.client_id, DATASET["label"], "hospital-", "client-"):
        assert await texts(house, client=name) == ["one"], name
    unknown = await house.internal.get(
        f"/internal/federations/{FED}/logs", params={"tenant": "acme", "client": "nobody"}
    )
    assert unknown.status_code == 404 and client.client_id in unknown.json()["detail"]
    params = {"tenant": "other", "client": client.client_id}
    stranger = await house.internal.get(f"/internal/federations/{FED}/logs", params=params)
    assert stranger.status_code == 404


async def test_only_the_newest_lines_of_a_lease_are_kept(
    house: House, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_lines, "LINES_KEPT", 5)
    lease = await client.joined()
    await say(house, client, lease, *(f"line {number}" for number in range(12)))
    assert await texts(house) == [f"line {number}" for number in range(7, 12)]


async def test_old_lines_are_forgotten(house: House, client: Client) -> None:
    lease = await client.joined()
    await say(house, client, lease, "old")
    between = house.clock.now()
    await say(house, client, lease, "new", first=2)
    await forget_before(house.made.database, between)
    assert await texts(house) == ["new"]


async def test_an_old_epoch_says_nothing_and_a_lease_that_ended_only_its_last_words(
    house: House, client: Client
) -> None:
    lease = await client.joined()
    old = await say(house, client, lease, "x", epoch=lease["epoch"] + 1)
    assert (old.status_code, old.json()["code"]) == (410, "lease-lost")
    await client.release(lease)
    assert (await say(house, client, lease, "bye")).status_code == 200
    house.clock.move(timedelta(minutes=2))
    late = await say(house, client, lease, "too late", first=2)
    assert late.status_code == 410
    assert await texts(house) == ["bye"]


async def test_what_a_terminal_would_obey_is_made_harmless(house: House, client: Client) -> None:
    lease = await client.joined()
    await say(house, client, lease, "\x1b]0;title\x07red\x00\u2028")
    assert await texts(house) == ["\ufffd]0;title\ufffdred\ufffd\ufffd"]


@pytest.mark.parametrize(
    "changes",
    [
        {"lines": []},
        {"run": "no/token"},
        {"more": 1},
        {"lines": [{"number": 0, "at": "2026-01-01T00:00:00Z", "text": "x"}]},
        {"lines": [{"number": 1, "at": "2026-01-01T00:00:00Z", "text": "x" * 1001}]},
        {"lines": [{"number": 1, "at": "2026-01-01T00:00:00Z", "text": "x", "kind": "loud"}]},
    ],
)
async def test_a_batch_that_is_none_is_refused(
    house: House, client: Client, changes: dict[str, Any]
) -> None:
    lease = await client.joined()
    assert (await say(house, client, lease, "x", **changes)).status_code == 422
    many = [{"number": n + 1, "at": "2026-01-01T00:00:00Z", "text": "x"} for n in range(101)]
    assert (await say(house, client, lease, lines=many)).status_code == 422
    assert await texts(house) == []


async def test_a_site_that_keeps_its_lines_is_seen_to(house: House, client: Client) -> None:
    lease = await client.joined()
    line = {"number": 1, "at": house.clock.now().isoformat(), "text": "kept", "kind": "kept"}
    assert (await say(house, client, lease, lines=[line])).status_code == 200
    assert (await read(house))["clients"][0]["keeps_lines"] is True
