"""A FederationSpec posted over HTTP is the message that its author would have published."""

import asyncio
import base64
import json
from typing import Any

import httpx
import pytest
import yaml

from flowerbed.contracts.federation import FederationCreated, FederationPolicyChanged
from flowerbed.contracts.ids import federation_id
from flowerbed.contracts.policy import RoundPolicy
from flowerbed.contracts.problems import parse_spec
from flowerbed.contracts.topology import SUBMISSIONS
from flowerbed.events import release
from flowerbed.events.documents import MAX_BYTES
from flowerbed.events.jetstream import Bus
from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.story import FED, NOON, OTHER, TENANT, Story, document


@pytest.fixture
def more_settings() -> dict[str, Any]:
    return {"otlp_allowed": "https://allowed.example:4318"}


async def _post(gateway: Gateway, content: Any, key: str | None = None, **params: str) -> Any:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    headers = {} if key is None else {"idempotency-key": key}
    return await gateway.http.post("/federations", content=raw, headers=headers, params=params)


async def _published(admin: Bus) -> list[tuple[str, dict[str, str], Any]]:
    """Subject, headers and body of every submission that JetStream holds."""
    state = (await admin.api(f"STREAM.INFO.{SUBMISSIONS}", {}))["state"]
    found = []
    for seq in range(max(state["first_seq"], 1), state["last_seq"] + 1):
        got = (await admin.api(f"STREAM.MSG.GET.{SUBMISSIONS}", {"seq": seq}))["message"]
        lines = base64.b64decode(got["hdrs"]).decode().splitlines()[1:]
        headers = dict(line.split(": ", 1) for line in lines if line)
        found.append((got["subject"], headers, json.loads(base64.b64decode(got["data"]))))
    return found


async def test_a_posted_spec_is_published_with_the_headers_of_an_event(
    gateway: Gateway, fresh_streams: Bus
) -> None:
    answer = await _post(gateway, document(), key="s1")

    identity = federation_id(TENANT, "s1")
    assert answer.status_code == 202
    assert answer.json() == {
        "federation_id": identity,
        "submission_id": "s1",
        "status_url": f"/federations/{identity}",
    }
    assert answer.headers["location"] == f"/federations/{identity}"
    ((subject, headers, body),) = await _published(fresh_streams)
    assert subject == f"fl.federation.submitted.{TENANT}.{identity}"
    assert headers["ce-id"] == "s1"
    assert headers["ce-type"] == "fl.federation.submitted"
    assert headers["ce-specversion"] == "1.0"
    assert headers["tenant"] == TENANT
    assert headers["correlationid"] == identity
    assert parse_spec(body) == parse_spec(document())


async def test_yaml_and_json_of_one_spec_are_one_submission(gateway: Gateway) -> None:
    one = await _post(gateway, document(), key="s1")
    two = await _post(gateway, yaml.safe_dump(document()).encode(), key="s1")

    assert one.status_code == two.status_code == 202
    assert one.json() == two.json()


async def test_a_submitted_federation_is_seen_at_once(gateway: Gateway) -> None:
    identity = (await _post(gateway, document())).json()["federation_id"]

    found = (await gateway.http.get(f"/federations/{identity}")).json()

    assert (found["status"], found["name"], found["n_rounds"]) == ("submitted", "demo", 2)
    assert found["waiting_for"] == "the orchestrator, which has not taken it up yet"
    listed = (await gateway.http.get("/federations", params={"tenant": TENANT})).json()
    assert [one["federation_id"] for one in listed["federations"]] == [identity]
    hidden = await gateway.http.get(f"/federations/{identity}", params={"tenant": OTHER})
    assert hidden.status_code == 404


async def test_posts_without_a_key_are_federations_of_their_own(gateway: Gateway) -> None:
    one, two = await _post(gateway, document()), await _post(gateway, document())
    assert one.json()["federation_id"] != two.json()["federation_id"]


async def test_the_same_key_with_another_spec_is_refused(
    gateway: Gateway, fresh_streams: Bus
) -> None:
    await _post(gateway, document(), key="s1")

    answer = await _post(gateway, document(num_rounds=3), key="s1")

    assert answer.status_code == 409
    assert answer.json()["code"] == "idempotency-key-reused"
    assert len(await _published(fresh_streams)) == 1


async def test_the_key_of_a_spec_published_on_nats_is_taken_too(gateway: Gateway) -> None:
    identity = federation_id(TENANT, "s1")
    story = Story()
    story.tell(
        f"federation-{identity}",
        FederationCreated(
            federation_id=identity,
            submission_id="s1",
            spec=parse_spec(document()).document(),
            code_hash="c" * 64,
            join_deadline_at=NOON,
        ),
    )
    policy = RoundPolicy(quorum=0.5).model_dump(mode="json")
    story.tell(
        f"federation-{identity}",
        FederationPolicyChanged(federation_id=identity, policy=policy, changed=("quorum",)),
    )
    await gateway.hear(story.told)

    again = await _post(gateway, document(), key="s1")
    assert again.status_code == 202, "a policy changed since makes it no other spec"
    assert (await _post(gateway, document(num_rounds=3), key="s1")).status_code == 409


async def test_one_key_belongs_to_each_tenant_on_its_own(
    gateway: Gateway, fresh_streams: Bus
) -> None:
    one = await _post(gateway, document(), key="s1")
    two = await _post(gateway, document(tenant=OTHER), key="s1")

    assert one.json()["federation_id"] != two.json()["federation_id"]
    assert len(await _published(fresh_streams)) == 2


async def test_of_two_posts_at_once_with_one_key_one_wins(
    gateway: Gateway, fresh_streams: Bus
) -> None:
    answers = await asyncio.gather(
        *(_post(gateway, document(num_rounds=n), key="s1") for n in range(1, 7))
    )

    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 5
    assert len(await _published(fresh_streams)) == 1


async def test_every_broken_rule_is_reported_and_nothing_is_published(
    gateway: Gateway, fresh_streams: Bus
) -> None:
    spec = {**document(num_rounds=0, min_clients=-1, client_fraction=1.5, colour="red")}

    answer = await _post(gateway, spec, key="s1")

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "spec-refused"
    assert {error["path"] for error in problem["errors"]} == {
        "spec.num_rounds", "spec.min_clients", "spec.client_fraction", "spec.colour",
    }  # fmt: skip
    assert all(set(error) == {"path", "value", "allowed"} for error in problem["errors"])
    assert await _published(fresh_streams) == []
    assert (await gateway.http.get("/federations")).json()["federations"] == []


async def test_what_is_no_document_is_refused(gateway: Gateway) -> None:
    for raw, status, code in (
        (b"a: [", 400, "document-unreadable"),
        (b"a: 1\na: 2", 400, "document-unreadable"),
        (b"", 422, "spec-refused"),
        (b"[]", 422, "spec-refused"),
        (b"x" * (MAX_BYTES + 1), 413, "document-too-long"),
    ):
        answer = await _post(gateway, raw)
        assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_a_key_that_no_header_of_an_event_can_hold_is_refused(gateway: Gateway) -> None:
    for key in ("", "a b", "x" * 201):
        answer = await _post(gateway, document(), key=key)
        assert (answer.status_code, answer.json()["code"]) == (400, "idempotency-key-unreadable")


async def test_a_spec_of_another_tenant_than_asked_for_is_refused(gateway: Gateway) -> None:
    answer = await _post(gateway, document(), tenant=OTHER)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["path"] == "metadata.tenant"


async def test_nothing_is_remembered_when_nats_is_away(gateway: Gateway) -> None:
    await gateway.shell.bus.close()

    answer = await _post(gateway, document(), key="s1")

    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert (await gateway.http.get("/federations")).json()["federations"] == []


async def test_without_the_token_nothing_is_told(gateway: Gateway) -> None:
    address = str(gateway.http.base_url)
    for header in (None, "Bearer wrong", "Basic xyz", "Bearer"):
        headers = {} if header is None else {"authorization": header}
        async with httpx.AsyncClient(base_url=address, headers=headers) as stranger:
            for method, path in (
                ("GET", "/federations"), ("GET", f"/federations/{FED}"), ("POST", "/federations"),
                ("GET", "/clients"), ("POST", "/clients/invites"), ("GET", "/dead-letters"),
                ("POST", f"/federations/{FED}/cancel"), ("POST", "/dead-letters/replay"),
            ):  # fmt: skip
                answer = await stranger.request(method, path)
                assert answer.status_code == 401, path
                assert answer.headers["www-authenticate"] == "Bearer"
                assert answer.headers["content-type"] == "application/problem+json"
            for path in ("/healthz", "/readyz", "/metrics"):
                assert (await stranger.get(path)).status_code == 200


async def test_while_an_older_replica_runs_only_what_it_can_read_is_taken(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def of_the_release_before(tx: object) -> int:
        return 1

    monkeypatch.setattr(release, "current", of_the_release_before)
    new = document()
    new["spec"]["round_policy"] = {"late_updates": "next_round"}
    short = document()
    short["spec"]["lease"] = {"ttl_seconds": 20}
    for content in (new, short, _naming("https://allowed.example:4318")):
        refused = await _post(gateway, content)
        assert (refused.status_code, refused.json()["code"]) == (409, "upgrade-unfinished")
    assert (await _post(gateway, document())).status_code == 202


def _naming(endpoint: str) -> dict[str, Any]:
    written = document()
    written["spec"]["telemetry"] = {"otlp_endpoint": endpoint}
    return written


async def test_a_spec_whose_collector_is_not_allowed_is_refused_and_changes_nothing(
    gateway: Gateway, fresh_streams: Bus
) -> None:
    for endpoint in ("https://allowed.example", "http://169.254.169.254", "https://a:b@c.example"):
        answer = await _post(gateway, _naming(endpoint), key="s1")
        assert answer.headers["content-type"] == "application/problem+json"
        assert (answer.status_code, answer.json()["code"]) == (422, "spec-refused")
        (problem,) = answer.json()["errors"]
        assert problem["path"] == "spec.telemetry.otlp_endpoint"
        assert "a:b" not in answer.text
        is_address = "@" not in endpoint
        assert ("FLOWERBED_<SERVICE>_OTLP_ALLOWED" in problem["allowed"]) == is_address
    assert await _published(fresh_streams) == []
    assert (await gateway.http.get("/federations")).json()["federations"] == []
    assert (await _post(gateway, document(), key="s1")).status_code == 202, "the key is free"


async def test_a_spec_whose_collector_is_allowed_is_published_with_it(
    gateway: Gateway, fresh_streams: Bus
) -> None:
    endpoint = "https://allowed.example:4318/otlp"
    assert (await _post(gateway, _naming(endpoint))).status_code == 202
    ((_, _, body),) = await _published(fresh_streams)
    named = {"otlp_endpoint": endpoint, "otlp_protocol": "http/protobuf"}
    assert body["spec"]["telemetry"] == named
