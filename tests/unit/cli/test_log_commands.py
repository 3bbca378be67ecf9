"""`flowerbed federation logs` and `flowerbed logs`: what a person sees of what was written."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from flowerbed.cli import federation
from flowerbed.cli.log_lines import told
from flowerbed.cli.plain_logs import in_words
from tests.unit.cli.federation_views import AT, FED
from tests.unit.cli.gateway_stub import StubGateway, run, stub_gateway

PATH = f"GET /federations/{FED}/logs"
CLEVELAND = {"client_id": "client-a", "label": "hospital-1", "keeps_lines": False}
HUNGARY = {"client_id": "client-b", "label": "hospital-2", "keeps_lines": True}


def line(position: int, text: str, kind: str = "line", client: Any = None) -> dict[str, Any]:
    who = {name: (client or CLEVELAND)[name] for name in ("client_id", "label")}
    return {"position": position, "at": AT, "kind": kind, "text": text, **who}


def page(*lines: dict[str, Any], is_open: bool = True, clients: Any = None) -> dict[str, Any]:
    return {
        "federation_id": FED,
        "lines": list(lines),
        "next_after": lines[-1]["position"] if lines else 9,
        "is_open": is_open,
        "clients": [CLEVELAND] if clients is None else clients,
    }


@pytest.fixture
def stub() -> Iterator[StubGateway]:
    with stub_gateway() as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def test_the_last_lines_of_a_client_are_shown(stub: StubGateway) -> None:
    stub.answer(PATH, page(line(1, "loss 0.5"), line(2, "7 lines left out", "left-out")))

    found = run(federation.app, "logs", FED, "--client", "hospital-1", "--tail", "2", url=stub.url)
    as_json = run(federation.app, "logs", FED, "-o", "json", url=stub.url)

    assert found.exit_code == 0 and found.stderr == ""
    first, second = found.stdout.splitlines()
    assert first.endswith("  loss 0.5") and second.endswith("[7 lines left out]")
    assert stub.asked[0][1].endswith("/logs?client=hospital-1&tail=2")
    assert json.loads(as_json.stdout)["lines"][0]["text"] == "loss 0.5"


def test_lines_of_several_clients_name_them_and_who_keeps_theirs(stub: StubGateway) -> None:
    stub.answer(PATH, page(line(1, "loss 0.5"), clients=[CLEVELAND, HUNGARY]))
    found = run(federation.app, "logs", FED, url=stub.url)
    assert "  hospital-1  loss 0.5" in found.stdout
    assert found.stderr == "hospital-2 keeps its log lines at the site\n"


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("hospital-54f6cfcb-ab86-5cae-a83a-fd8a981adb10", "hospital-54f6cfcb"),
        ("x-1", "x-1"),
        (None, "client-a"),
    ],
)
def test_a_label_is_shown_as_far_as_it_is_needed(label: str | None, shown: str) -> None:
    told_line = told(line(1, "x") | {"label": label}, with_client=True)
    assert told_line.endswith(f"  {shown}  x")


@pytest.mark.parametrize(("clients", "words"), [([], "no client"), ([CLEVELAND], "no lines")])
def test_where_there_is_nothing_that_is_said(stub: StubGateway, clients: Any, words: str) -> None:
    stub.answer(PATH, page(clients=clients))
    found = run(federation.app, "logs", FED, url=stub.url)
    assert (found.exit_code, found.stdout) == (0, "") and found.stderr.startswith(words)


def test_following_goes_on_until_the_federation_has_said_all(stub: StubGateway) -> None:
    stub.answer(PATH, page(line(1, "one")))
    stub.answer(PATH, {"detail": "away"}, 503)
    stub.answer(PATH, page())
    stub.answer(PATH, page(line(2, "two"), is_open=False))
    stub.answer(PATH, page(is_open=False) | {"next_after": 2})

    found = run(federation.app, "logs", FED, "--follow", "-o", "json", url=stub.url)

    assert [json.loads(text)["text"] for text in found.stdout.splitlines()] == ["one", "two"]
    assert stub.asked[-1][1].endswith("after=2")


def test_all_lines_past_a_position_are_fetched_page_by_page(stub: StubGateway) -> None:
    stub.answer(PATH, page(line(4, "four")))
    stub.answer(PATH, page(line(5, "five")))
    stub.answer(PATH, page())
    found = run(federation.app, "logs", FED, "--after", "3", url=stub.url)
    assert [text.split()[-1] for text in found.stdout.splitlines()] == ["four", "five"]
    assert [one[1].partition("?")[2] for one in stub.asked] == ["after=3", "after=4", "after=5"]


def test_a_services_line_is_told_in_plain_words() -> None:
    entry = {
        "time": "2026-11-26 00:01:02,345", "level": "WARNING", "logger": "flowerbed.lease.desk",
        "message": "client client-a is silent", "service": "lease",
        "trace_id": "0123456789abcdef0123456789abcdef", "federation_id": FED,
    }  # fmt: skip
    assert in_words(json.dumps(entry)) == (
        f"2026-11-26 00:01:02 warn  lease.desk: client client-a is silent  ({FED}, trace 01234567)"
    )
    failed = in_words(json.dumps({"level": "ERROR", "message": "boom", "exc_info": "Trace\n  at"}))
    assert failed.splitlines()[1:] == ["    Trace", "      at"]


@pytest.mark.parametrize("text", ["LOG:  database system is ready", "{not json", "[1]", '{"a": 1}'])
def test_a_line_of_another_kind_stays_as_it_is(text: str) -> None:
    assert in_words(text) == text
