"""`flowerbed webhook`: the secret once, on stdout alone; the rest in a table."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from flowerbed.cli import webhook
from tests.unit.cli.gateway_stub import StubGateway, run, stub_gateway

HOOK: dict[str, Any] = {
    "webhook_id": "wh-1", "tenant": None, "url": "https://example.com/hook", "federation_id": None,
    "types": ["fl.round.started"], "status": "active", "reason": "", "position": 42, "lag": 1000,
    "n_failures": 3, "failing_since": None, "last_error": "answered 500", "next_attempt_at": None,
    "delivered_at": None, "created_at": "2026-01-01T12:00:00Z", "created_by": "local-token",
}  # fmt: skip


@pytest.fixture
def stub() -> Iterator[StubGateway]:
    with stub_gateway() as gateway:
        yield gateway


def test_the_secret_stands_alone_on_stdout(stub: StubGateway) -> None:
    stub.answer("POST /webhooks", HOOK | {"secret": "whsec_abc"}, 201)
    found = run(
        webhook.app, "create", "https://example.com/hook", "--federation", "fed-1", "--type",
        "fl.round.started", "--after", "0", url=stub.url,
    )  # fmt: skip

    assert (found.exit_code, found.stdout) == (0, "whsec_abc\n")
    assert "wh-1" in found.stderr and "whsec" not in found.stderr
    assert stub.asked == [
        (
            "POST",
            "/webhooks",
            {
                "url": "https://example.com/hook",
                "federation_id": "fed-1",
                "types": ["fl.round.started"],
                "after": 0,
            },
        )
    ]


def test_a_refused_address_is_one_line_and_exit_code_2(stub: StubGateway) -> None:
    problem = {"status": 422, "detail": "the url is not called", "errors": []}
    stub.answer("POST /webhooks", problem, 422)
    found = run(webhook.app, "create", "http://example.com/", url=stub.url)
    assert (found.exit_code, found.stdout) == (2, "")
    assert "the url is not called" in found.stderr


def test_webhooks_are_listed_and_shown(stub: StubGateway) -> None:
    stub.answer("GET /webhooks", {"webhooks": [HOOK]})
    stub.answer("GET /webhooks/wh-1", HOOK)
    listed = run(webhook.app, "list", url=stub.url)
    as_json = run(webhook.app, "list", "--output", "json", url=stub.url)
    shown = run(webhook.app, "show", "wh-1", url=stub.url)

    assert "wh-1" in listed.stdout and "1000 or more" in listed.stdout
    assert json.loads(as_json.stdout) == [HOOK]
    assert "3 failures in a row: answered 500" in shown.stdout
    assert "only fl.round.started" in shown.stdout


def test_commands_say_what_was_done(stub: StubGateway) -> None:
    for verb in ("replay", "pause", "resume"):
        stub.answer(f"POST /webhooks/wh-1/{verb}", HOOK)
    stub.answer("DELETE /webhooks/wh-1", b"", 204)
    done = [
        run(webhook.app, *arguments, url=stub.url)
        for arguments in (
            ("replay", "wh-1", "--after", "7"),
            ("pause", "wh-1"),
            ("resume", "wh-1"),
            ("delete", "wh-1"),
        )
    ]

    assert [one.exit_code for one in done] == [0, 0, 0, 0]
    assert [one.stdout for one in done] == [
        "wh-1 goes on behind 7\n", "wh-1 paused\n", "wh-1 resumed\n", "wh-1 deleted\n",
    ]  # fmt: skip
    assert stub.asked[0] == ("POST", "/webhooks/wh-1/replay", {"after": 7})
    assert run(webhook.app, "replay", "wh-1", url=stub.url).exit_code == 2
