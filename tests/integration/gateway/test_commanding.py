"""Commands go to the service that owns the facts, with the internal token."""

from typing import Any

from fastapi.responses import JSONResponse

from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.story import FED, TENANT, ref, whole_story

TWO = ref("two").sha256


COMMANDS: tuple[tuple[str, Any, str, Any], ...] = (
    (
        "/clients/invites",
        {"tenant": "acme", "tags": ["eu"]},
        "/internal/invites",
        {"tenant": "acme", "tags": ["eu"], "ttl_seconds": 86_400},
    ),
    (
        "/clients/client-a/revoke",
        {"reason": "sold"},
        "/internal/clients/client-a/revoke",
        {"tenant": TENANT, "reason": "sold"},
    ),
    (
        f"/federations/{FED}/pause",
        {"reason": "lunch"},
        f"/internal/federations/{FED}/pause",
        {"tenant": TENANT, "reason": "lunch"},
    ),
    (
        f"/federations/{FED}/resume",
        None,
        f"/internal/federations/{FED}/resume",
        {"tenant": TENANT, "reason": ""},
    ),
    (
        f"/federations/{FED}/policy",
        {"closeAt": 3, "quorum": 0.5, "reason": "slow site"},
        f"/internal/federations/{FED}/policy",
        {"tenant": TENANT, "reason": "slow site", "changes": {"closeAt": 3, "quorum": 0.5}},
    ),
    (
        f"/artifacts/{FED}/2/verify",
        None,
        "/verify",
        {"federation_id": FED, "round_number": 2},
    ),
    (
        f"/artifacts/{TWO}/promote",
        {"channel": "stable"},
        f"/internal/artifacts/{TWO}/promote",
        {"tenant": TENANT, "federation_id": FED, "channel": "stable"},
    ),
    (
        f"/artifacts/{TWO}/revoke",
        {"reason": "poisoned"},
        f"/internal/artifacts/{TWO}/revoke",
        {"tenant": TENANT, "federation_id": FED, "reason": "poisoned"},
    ),
)


async def test_a_command_reaches_its_owner(gateway: Gateway) -> None:
    await gateway.hear(whole_story().told)

    for path, body, there, asked in COMMANDS:
        answer = await gateway.http.post(path, json=body)

        assert answer.status_code == 200, answer.text
        assert answer.json() == {"path": there.removeprefix("/")}
        assert gateway.behind.asked.pop() == ("POST", there, asked)
    token = gateway.settings.internal_token.get_secret_value()
    assert gateway.behind.tokens == {f"Bearer {token}"}


async def test_an_owners_refusal_is_handed_on_as_it_is(gateway: Gateway) -> None:
    await gateway.hear(whole_story().told)
    problem = {"status": 409, "code": "federation-ended", "detail": "it has ended"}
    gateway.behind.answers[f"/internal/federations/{FED}/cancel"] = JSONResponse(
        problem, 409, media_type="application/problem+json"
    )

    answer = await gateway.http.post(f"/federations/{FED}/cancel")

    assert (answer.status_code, answer.json()) == (409, problem)
    assert answer.headers["content-type"] == "application/problem+json"


REFUSED: tuple[tuple[str, Any, int], ...] = (
    ("/clients/invites", {"tenant": "a.b"}, 422),
    ("/clients/invites", {"ttl_seconds": 1}, 422),
    ("/clients/invites", {"colour": "red"}, 422),
    ("/clients/client-x/revoke", {}, 404),
    ("/federations/fed-x/pause", {}, 404),
    (f"/federations/{FED}/explode", {}, 404),
    ("/federations/fed-x/policy", {"quorum": 0.5}, 404),
    (f"/federations/{FED}/policy", [0.5], 422),
    (f"/federations/{FED}/policy", {"quorum": 0.5, "reason": 7}, 422),
    (f"/artifacts/{FED}/-1/verify", {}, 422),
    ("/artifacts/fed-x/1/verify", {}, 404),
    (f"/artifacts/{'0' * 64}/promote", {}, 404),
    (f"/artifacts/{TWO}/promote", {"channel": "No Channel"}, 422),
    (f"/artifacts/{TWO}/promote", {"federation_id": "fed-x"}, 409),
)


async def test_a_command_that_cannot_be_is_refused_here(gateway: Gateway) -> None:
    await gateway.hear(whole_story().told)

    for path, body, status in REFUSED:
        answer = await gateway.http.post(path, json=body)
        assert answer.status_code == status, answer.text
    assert gateway.behind.asked == []


async def test_a_policy_that_cannot_be_read_is_refused_here(gateway: Gateway) -> None:
    await gateway.hear(whole_story().told)
    for raw in (b"{", b'{"quorum": NaN}', b"quorum: .nan", b"a: 1\na: 2"):
        answer = await gateway.http.post(f"/federations/{FED}/policy", content=raw)
        assert (answer.status_code, answer.json()["code"]) == (400, "document-unreadable")
    written = b"close_at: 3\nreason: slow site\n"
    assert (await gateway.http.post(f"/federations/{FED}/policy", content=written)).is_success
    assert [asked[2]["changes"] for asked in gateway.behind.asked] == [{"close_at": 3}]


async def test_dead_letters_of_all_services_are_listed_and_replayed(gateway: Gateway) -> None:
    letter = {"consumer": "lease", "lane": FED, "tenant": TENANT, "stream": "s", "version": 3}
    gateway.behind.answers["/internal/dead-letters"] = JSONResponse([letter, letter])
    gateway.behind.answers["/internal/dead-letters/replay"] = JSONResponse({"replayed": 2})

    found = (await gateway.http.get("/dead-letters")).json()
    none = (await gateway.http.get("/dead-letters", params={"tenant": "rival"})).json()
    done = (await gateway.http.post("/dead-letters/replay", json={"service": "lease"})).json()

    assert len(found["dead_letters"]) == 8 and found["unavailable"] == []
    assert {one["service"] for one in found["dead_letters"]} == {
        "orchestrator", "lease", "aggregator", "artifact",
    }  # fmt: skip
    assert none["dead_letters"] == []
    assert done["lanes"] == [
        {"service": "lease", "consumer": "lease", "lane": FED, "replayed": 2, "error": ""}
    ]


async def test_a_replay_that_fails_again_says_so(gateway: Gateway) -> None:
    letter = {"consumer": "lease", "lane": FED, "tenant": TENANT, "stream": "s", "version": 3}
    gateway.behind.answers["/internal/dead-letters"] = JSONResponse([letter])
    gateway.behind.answers["/internal/dead-letters/replay"] = JSONResponse({}, 500)

    done = (await gateway.http.post("/dead-letters/replay", json={})).json()

    assert len(done["lanes"]) == 4
    assert all("answered 500" in lane["error"] for lane in done["lanes"])


async def test_a_service_that_does_not_list_its_dead_letters_is_named(gateway: Gateway) -> None:
    gateway.behind.answers["/internal/dead-letters"] = JSONResponse({}, 500)

    found = (await gateway.http.get("/dead-letters")).json()

    assert found["unavailable"] == ["orchestrator", "lease", "aggregator", "artifact"]
    assert found["dead_letters"] == []


async def test_an_owner_that_is_away_is_a_503_with_retry_after(gateway: Gateway) -> None:
    await gateway.behind.stop()

    answer = await gateway.http.post("/clients/invites", json={})

    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert "lease service did not answer" in answer.json()["detail"]
    assert answer.headers["retry-after"]
