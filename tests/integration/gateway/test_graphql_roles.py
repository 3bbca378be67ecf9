"""GraphQL and webhooks know who asks: roles, tenants, the audit trail."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from fastapi.responses import JSONResponse

from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.story import FED, OTHER, TENANT, document, whole_story
from tests.support.graphql_ws import Refused, spoken
from tests.support.issuer import TestIssuer, issuer

READ = "query ($id: ID!) { federation(id: $id) { name rounds { nodes { roundNumber } } } }"
PAUSE = "mutation ($id: ID!) { pause(id: $id) { events federation { name } } }"
START = """mutation ($config: JSON!) {
  startFederatedTrainingJob(jobName: "heart", config: $config) { id status }
}"""
EVENTS = "subscription { events { tenant } }"
AWAY = "https://example.com/hook"


@pytest.fixture
async def people() -> AsyncIterator[TestIssuer]:
    async with issuer() as made:
        yield made


@pytest.fixture
def more_settings(people: TestIssuer) -> dict[str, Any]:
    return {"issuers": [people.settings().model_dump()]}


class Person:
    def __init__(self, gateway: Gateway, people: TestIssuer, **roles: str) -> None:
        self.gateway = gateway
        self.token = f"Bearer {people.token(flowerbed_roles=roles)}"

    async def ask(self, query: str, **variables: Any) -> Any:
        body = {"query": query, "variables": variables}
        answer = await self._post("/graphql", body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def refused(self, query: str, **variables: Any) -> str:
        (found,) = (await self.ask(query, **variables))["errors"]
        return str(found["extensions"]["code"])

    async def make_webhook(self, **asked: Any) -> int:
        return int((await self._post("/webhooks", asked)).status_code)

    async def _post(self, path: str, body: Any) -> Any:
        headers = {"authorization": self.token}
        return await self.gateway.http.post(path, json=body, headers=headers)


async def test_a_query_shows_what_the_principal_may_see(
    gateway: Gateway, people: TestIssuer
) -> None:
    await gateway.hear(whole_story().told)
    mine = Person(gateway, people, **{TENANT: "viewer"})
    theirs = Person(gateway, people, **{OTHER: "viewer"})
    both = Person(gateway, people, **{TENANT: "viewer", OTHER: "viewer"})
    nobody = Person(gateway, people)
    listed = "query ($t: String) { federations(tenant: $t) { nodes { tenant } } }"

    assert "errors" not in await mine.ask(READ, id=FED)
    assert await theirs.refused(READ, id=FED) == "not-found"
    assert await nobody.refused(READ, id=FED) == "forbidden"
    found = (await mine.ask(listed))["data"]["federations"]["nodes"]
    assert {one["tenant"] for one in found} == {TENANT}
    assert await mine.refused(listed, t=OTHER) == "forbidden"
    assert await both.refused(listed) == "tenant-needed"
    assert "errors" not in await both.ask(listed, t=OTHER)


async def test_a_command_needs_an_operator_and_is_written_down(
    gateway: Gateway, people: TestIssuer
) -> None:
    await gateway.hear(whole_story().told)
    answer = JSONResponse({"federation_id": FED, "events": ["fl.federation.paused"]})
    gateway.behind.answers[f"/internal/federations/{FED}/pause"] = answer
    viewer = Person(gateway, people, **{TENANT: "viewer"})
    operator = Person(gateway, people, **{TENANT: "operator", OTHER: "operator"})

    assert await viewer.refused(PAUSE, id=FED) == "forbidden"
    assert gateway.behind.asked == []
    assert await operator.refused(PAUSE, id=FED) == "tenant-needed"
    named = PAUSE.replace("pause(id: $id)", f'pause(id: $id, tenant: "{TENANT}")')
    done = await operator.ask(named, id=FED)
    assert done["data"]["pause"]["federation"] == {"name": "demo"}
    twice = await operator.ask(
        f'mutation ($id: ID!) {{ a: pause(id: $id, tenant: "{TENANT}") {{ events }}'
        f' b: pause(id: $id, tenant: "{TENANT}") {{ events }} }}',
        id=FED,
    )
    assert [one["extensions"]["code"] for one in twice["errors"]] == ["one-command-at-once"]
    started = await operator.ask(START, config=document())
    assert started["data"]["startFederatedTrainingJob"]["status"] == "PENDING"
    rows = (await gateway.http.get("/audit")).json()["rows"]
    told = [(one["action"], one["code"]) for one in rows if one["path"] == "/graphql"]
    assert ("pause", "") in told and ("pause", "forbidden") in told
    assert ("startFederatedTrainingJob", "") in told


async def test_a_subscription_hears_of_its_own_tenant_alone(
    gateway: Gateway, people: TestIssuer
) -> None:
    story = whole_story().told
    await gateway.hear(story)
    mine = Person(gateway, people, **{OTHER: "viewer"})
    nobody = Person(gateway, people)
    n_mine = sum(one.context.tenant == OTHER for one in story)
    async with (
        spoken(gateway.http, token=mine.token) as one,
        aclosing(one.subscribe(EVENTS)) as events,
    ):
        seen = [(await anext(events))["events"]["tenant"] for _ in range(n_mine)]
    assert seen == [OTHER] * n_mine
    async with spoken(gateway.http, token=nobody.token, in_header=True) as one:
        with pytest.raises(Refused) as refused:
            await anext(one.subscribe(EVENTS))
    assert refused.value.errors[0]["extensions"]["code"] == "forbidden"
    async with spoken(gateway.http) as one:
        await one.say({"id": "1", "type": "subscribe", "payload": {"query": PAUSE,
            "variables": {"id": FED}}})  # fmt: skip
        assert "commands-by-post" in json.dumps(await one.hear())


async def test_webhooks_are_for_admins_and_those_to_this_machine_for_admins_of_all(
    gateway: Gateway, people: TestIssuer
) -> None:
    await gateway.hear(whole_story().told)
    operator = Person(gateway, people, **{TENANT: "operator"})
    admin = Person(gateway, people, **{TENANT: "admin"})
    here = "http://127.0.0.1:1/hook"

    assert await operator.make_webhook(url=AWAY) == 403
    assert await admin.make_webhook(url=here) == 403
    assert await admin.make_webhook(url=AWAY, tenant=OTHER) == 403
    assert await admin.make_webhook(url=AWAY) == 201
    assert await admin.make_webhook(url=AWAY, federation_id=FED) == 201
    (one, two) = (await gateway.http.get("/webhooks")).json()["webhooks"]
    assert {one["tenant"], two["tenant"]} == {TENANT}
    assert one["created_by"].startswith("http")
