"""GraphQL says what REST says, page by page, with the same errors and within limits."""

import json
from typing import Any

import pytest
from fastapi.responses import JSONResponse

from flowerbed.gateway.reads import Reads
from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.story import (
    CLIENTS,
    FED,
    OTHER,
    REFUSED,
    ref,
    whole_story,
)
from tests.support.graphql import ask, data, error

# --- what is read -----------------------------------------------------------

EVERYTHING = """
query ($id: ID!) {
  federation(id: $id) {
    federationId tenant name status nRounds createdAt baseSha256 final { sha256 uri } metrics spec
    rounds { nodes {
      roundNumber attempt status trainSeconds totalSeconds training evaluation
      trainUpdates { accepted rejected failed quarantined }
      updates { nodes { clientId exchange status nExamples metrics code } }
    } }
    clients { nodes { clientId status dataset tags } }
    artifacts { nodes { sha256 size kind parents channels revokedReason } }
    lineage { isComplete checkpoints { sha256 parents folded { clientId weight } } }
    events(first: 200) { nodes { position type stream version data } }
  }
}
"""


async def test_a_federation_is_what_rest_says_it_is(gateway: Gateway) -> None:
    await gateway.hear(whole_story().told)

    found = (await data(gateway, EVERYTHING, id=FED))["federation"]
    rest = (await gateway.http.get(f"/federations/{FED}")).json()

    assert (found["status"], found["nRounds"]) == (rest["status"], rest["n_rounds"])
    assert found["baseSha256"] == rest["base"]["sha256"]
    assert (found["final"], found["metrics"], found["spec"]) == (
        rest["final"], rest["metrics"], rest["spec"],
    )  # fmt: skip
    rounds = found["rounds"]["nodes"]
    assert [
        (one["roundNumber"], one["attempt"], one["status"], one["totalSeconds"]) for one in rounds
    ] == [
        (one["round_number"], one["attempt"], one["status"], one["total_seconds"])
        for one in rest["rounds"]
    ]
    assert [one["trainUpdates"] for one in rounds] == [
        {name: one["train_updates"][name] for name in rounds[0]["trainUpdates"]}
        for one in rest["rounds"]
    ]
    detail = (await gateway.http.get(f"/federations/{FED}/rounds/1")).json()["updates"]
    told = [one for two in rounds[:2] for one in two["updates"]["nodes"]]
    assert sorted((one["clientId"], one["exchange"], one["status"]) for one in told) == sorted(
        (one["client_id"], one["exchange"], one["status"]) for one in detail
    )
    assert [one["clientId"] for one in found["clients"]["nodes"]] == list(CLIENTS)
    assert {one["sha256"] for one in found["artifacts"]["nodes"]} == {
        one["sha256"] for one in rest["artifacts"]
    }
    lineage = (await gateway.http.get(f"/federations/{FED}/lineage")).json()
    assert found["lineage"]["isComplete"] is True
    assert [one["sha256"] for one in found["lineage"]["checkpoints"]] == [
        one["sha256"] for one in lineage["checkpoints"]
    ]
    history = (await gateway.http.get(f"/federations/{FED}/events")).json()["events"]
    assert [(one["position"], one["type"], one["data"]) for one in found["events"]["nodes"]] == [
        (one["position"], one["type"], one["data"]) for one in history
    ]


PAGED = (
    ("federations", "federationId", ""),
    ("clients", "clientId", ""),
    ("events", "position", ""),
    ("rounds", "attempt", f'federation(id: "{FED}")'),
    ("artifacts", "sha256", f'federation(id: "{FED}")'),
    ("events", "position", f'federation(id: "{FED}")'),
    ("clients", "clientId", f'federation(id: "{FED}")'),
)


async def test_pages_hold_each_one_once_in_the_same_order(gateway: Gateway) -> None:
    await gateway.hear(whole_story().told)
    for name, key, within in PAGED:
        await _walk(gateway, name, key, within)


async def _walk(gateway: Gateway, name: str, key: str, within: str) -> None:
    kind = "Long" if (name, within) == ("events", "") else "String"
    body = f"edges {{ cursor node {{ {key} }} }} pageInfo {{ hasNextPage endCursor }}"
    field = f"{name}(first: $first, after: $after) {{ {body} }}"
    inner = f"{within} {{ {field} }}" if within else field
    query = f"query ($first: Int!, $after: {kind}) {{ {inner} }}"

    async def page(first: int, after: str | None) -> Any:
        variables: dict[str, Any] = {"first": first}
        if after is not None:
            variables["after"] = int(after) if kind == "Long" else after
        told = await data(gateway, query, **variables)
        return (told["federation"] if within else told)[name]

    whole = (await page(200, None))["edges"]
    seen: list[Any] = []
    after, more = None, True
    while more:
        found = await page(9 if name == "events" else 2, after)
        seen += found["edges"]
        after, more = found["pageInfo"]["endCursor"], found["pageInfo"]["hasNextPage"]
    assert seen == whole
    assert len({one["cursor"] for one in whole}) == len(whole) > 1


async def test_lists_are_filtered(gateway: Gateway) -> None:
    await gateway.hear(whole_story().told)
    found = await data(
        gateway,
        """query ($id: ID!, $other: String) {
          federations(status: "completed") { nodes { federationId } }
          theirs: federations(tenant: $other) { nodes { federationId problems } }
          events(types: ["fl.round.started"]) { nodes { type tenant federationId } }
          federation(id: $id) {
            rounds(status: "failed") { nodes { roundNumber attempt
              updates(status: "rejected") { nodes { status code } } } }
            artifacts(kind: "base") { nodes { kind } }
            events(type: "fl.round.completed") { nodes { type } }
          }
          round(federationId: $id, number: 2) { nodes { roundNumber } }
        }""",
        id=FED,
        other=OTHER,
    )

    assert found["federations"]["nodes"] == [{"federationId": FED}]
    (refused,) = found["theirs"]["nodes"]
    assert refused["federationId"] == REFUSED and refused["problems"]
    assert {one["type"] for one in found["events"]["nodes"]} == {"fl.round.started"}
    (failed,) = found["federation"]["rounds"]["nodes"]
    assert {one["status"] for one in failed["updates"]["nodes"]} == {"rejected"}
    assert found["federation"]["artifacts"]["nodes"] == [{"kind": "base"}]
    assert len(found["federation"]["events"]["nodes"]) == 2
    assert found["round"]["nodes"] == [{"roundNumber": 2}]


async def test_everything_else_can_be_asked_too(gateway: Gateway) -> None:
    await gateway.hear(whole_story().told)
    ready = {"ready": True, "checks": {}, "failing": {}, "lags": {}}
    gateway.behind.answers["/readyz"] = JSONResponse(ready)
    found = await data(
        gateway,
        """query ($id: ID!, $sha256: String!) {
          why(federationId: $id) { status waits { code what } hints }
          lineage(federationId: $id) { isComplete }
          artifact(sha256: $sha256) { records { federationId channels } }
          services { name status deadLetters replicas { status } }
          slo(hours: 876) { indicators { name good total ratio } }
          __schema { queryType { name } }
        }""",
        id=FED,
        sha256=ref("two").sha256,
    )

    assert found["why"]["waits"]["code"] == "completed"
    assert found["artifact"]["records"] == [{"federationId": FED, "channels": ["stable"]}]
    assert {one["name"] for one in found["services"]} >= {"orchestrator", "gateway"}
    assert [one["name"] for one in found["slo"]["indicators"]] == ["joins", "rounds", "artifacts"]
    assert found["__schema"]["queryType"]["name"] == "Query"


# --- errors and limits ------------------------------------------------------


async def test_what_is_not_known_is_an_error_with_the_code_of_rest(gateway: Gateway) -> None:
    told = await error(
        gateway, "query ($id: ID!) { getFederatedTrainingJob(id: $id) { id } }", id="fed-x"
    )
    assert told["extensions"] == {"code": "not-found", "status": 404}
    for query, code in (
        ('{ federations(after: "nonsense") { nodes { name } } }', "cursor-unreadable"),
        ("{ federations(first: 0) { nodes { name } } }", "out-of-range"),
        ("{ federations(first: 201) { nodes { name } } }", "out-of-range"),
        ("{ slo(hours: 0) { hours } }", "out-of-range"),
        ('{ events(types: ["fl.x"]) { nodes { id } } }', "event-type-unknown"),
    ):
        assert (await error(gateway, query))["extensions"]["code"] == code


async def test_text_that_cannot_be_kept_is_refused(gateway: Gateway) -> None:
    by_name = "query ($name: String) { federations(name: $name) { nodes { name } } }"
    told = [
        await error(gateway, by_name, name="a\0b"),
        await error(gateway, by_name, name="\ud800"),
        await error(gateway, '{ federations(name: "a\\u0000b") { nodes { name } } }'),
        await error(gateway, '{ federations(name: "a\\u{00}b") { nodes { name } } }'),
    ]
    assert {one["extensions"]["code"] for one in told} == {"not-valid"}
    assert "errors" not in await ask(gateway, by_name, name="\N{SNOWMAN} \N{HEDGEHOG}")


async def test_a_position_is_a_whole_number(gateway: Gateway) -> None:
    by_variable = "query ($after: Long!) { events(after: $after) { nodes { id } } }"
    for after in (-1, 2**63, "1", 1.5, True):
        told = await error(gateway, by_variable, after=after)
        assert "a whole number from 0 to" in told["message"]
    for written in ("-1", str(2**63), '"1"', "1.5"):
        told = await error(gateway, f"{{ events(after: {written}) {{ nodes {{ id }} }} }}")
        assert "a whole number from 0 to" in told["message"]
    assert "errors" not in await ask(gateway, by_variable, after=2**63 - 1)


async def test_an_error_of_ours_shows_nothing_of_itself(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("password=hunter2")

    monkeypatch.setattr(Reads, "clients", broken)
    told = await error(gateway, "{ clients { nodes { clientId } } }")

    assert told["message"] == "an error of ours; the log has it"
    assert told["extensions"] == {"code": "internal-error", "status": 500}
    assert "hunter2" not in json.dumps(told)
    assert "hunter2" in caplog.text


async def test_a_query_has_limits(gateway: Gateway) -> None:
    deep = "{ __schema " * 1 + "{ types " + "{ ofType " * 0 + "{ name } } }"
    assert "errors" not in await ask(gateway, deep)
    federation = f'federation(id: "{FED}")'
    nested = "{ " + federation + " { rounds { nodes { updates { nodes { metrics } } } } } }"
    assert "exceeds" not in json.dumps(await ask(gateway, nested))
    aliases = "{ " + " ".join(f"a{n}: {federation} {{ name }}" for n in range(31)) + " }"
    tokens = "{ " + "federation " * 2001 + "}"
    for query in (aliases, tokens):
        told = await ask(gateway, query)
        assert told["errors"] and told.get("data") is None, query[:80]


async def test_what_is_no_query_is_a_problem(gateway: Gateway) -> None:
    batch = await gateway.http.post("/graphql", json=[{"query": "{ __typename }"}])
    nothing = await gateway.http.post("/graphql", json={})
    broken = await gateway.http.post(
        "/graphql", content=b"{", headers={"content-type": "application/json"}
    )
    upload = await gateway.http.post("/graphql", files={"a": b"b"})
    deep = [
        await gateway.http.post(
            "/graphql",
            content=b'{"query": "{ __typename }", "variables": {"a": %s}}' % (b"[" * n + b"]" * n),
            headers={"content-type": "application/json"},
        )
        for n in (600, 100_000)
    ]
    for answer in (batch, nothing, broken, upload, *deep):
        assert 400 <= answer.status_code < 500, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
    read = await gateway.http.get("/graphql", params={"query": "{ __typename }"})
    assert 400 <= read.status_code < 500, read.text


async def test_who_shows_no_token_is_told_nothing(gateway: Gateway) -> None:
    body = {"query": "{ __typename }"}
    answer = await gateway.http.post("/graphql", json=body, headers={"authorization": "Bearer x"})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
