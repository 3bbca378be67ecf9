"""The dashboard's files: what is sent with them, and that nothing of others is in them unnamed."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

import flowerbed.gateway
from flowerbed.contracts.catalogue import EVENTS
from flowerbed.contracts.federation import FederationEvent
from flowerbed.events.http import new_app
from flowerbed.gateway.web_routes import web_routes

WEB = Path(next(iter(flowerbed.gateway.__path__))) / "web"
OURS = [one for one in WEB.rglob("*") if one.is_file() and "vendor" not in one.parts]


@pytest.fixture(scope="module")
def http() -> Iterator[TestClient]:
    app = new_app("dashboard")
    app.include_router(web_routes())
    with TestClient(app) as client:
        yield client


def test_the_page_runs_no_code_but_its_own(http: TestClient) -> None:
    answer = http.get("/")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy and "http" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_what_is_known_already_is_not_sent_again(http: TestClient) -> None:
    first = http.get("/assets/js/main.js")
    again = http.get(
        "/assets/js/main.js", headers={"if-none-match": f'"x", {first.headers["etag"]}'}
    )
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["cache-control"] == "no-cache"


def test_packed_or_plain_it_is_the_same_text_under_another_etag(http: TestClient) -> None:
    packed = http.get("/assets/css/tokens.css", headers={"accept-encoding": "gzip"})
    plain = http.get("/assets/css/tokens.css", headers={"accept-encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.text == plain.text
    assert packed.headers["etag"] != plain.headers["etag"]


@pytest.mark.parametrize(
    "path",
    [
        "/assets/none.js",
        "/assets/../settings.py",
        "/assets/%2e%2e/settings.py",
        "/assets/vendor/README.md",
    ],
)
def test_only_files_of_the_dashboard_are_served(http: TestClient, path: str) -> None:
    answer = http.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_each_vendored_file_is_the_one_that_is_written_down() -> None:
    written = dict(
        re.findall(r"\| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|", _read("vendor/README.md"))
    )
    there = {
        one.name: hashlib.sha256(one.read_bytes()).hexdigest()
        for one in (WEB / "vendor").iterdir()
        if one.suffix in (".js", ".css", ".woff2")
    }
    assert there == written


def test_nothing_is_inline_and_no_other_host_is_named() -> None:
    page = _read("index.html")
    assert not re.search(r"<script(?![^>]*src=)|\sstyle=|<style|\son[a-z]+=", page)
    named = [
        f"{one.name}: {url}"
        for one in OURS
        for url in re.findall(r"https?://[^\s\"'`)]+", one.read_text())
        if url != "http://www.w3.org/2000/svg"
    ]
    assert named == []


def test_files_are_short() -> None:
    assert [one.name for one in OURS if len(one.read_text().splitlines()) > 300] == []


def _read(name: str) -> str:
    return (WEB / name).read_text()


@pytest.mark.parametrize("kind", [one.type for one in EVENTS if issubclass(one, FederationEvent)])
def test_every_event_of_a_federation_is_told_in_plain_words(kind: str) -> None:
    assert f'"{kind}": () =>' in (WEB / "js" / "federation" / "events.js").read_text()
