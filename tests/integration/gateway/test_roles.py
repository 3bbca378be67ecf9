"""Every route with every role, out of the app's own route table: none is open by mistake."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute, iter_route_contexts

from flowerbed.gateway.auth import Role, declared
from flowerbed.gateway.door import HEALTH, INTERNAL, READING, is_public
from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.story import CLIENTS, FED, OTHER, TENANT, document, ref, whole_story
from tests.support.issuer import TestIssuer, issuer

PLACES = {
    "federation_id": FED, "client_id": CLIENTS[0], "sha256": ref("one").sha256, "number": "1",
    "verb": "pause", "label": CLIENTS[0],
}  # fmt: skip
"""What stands for a route's parameters."""


@pytest.fixture
async def people() -> AsyncIterator[TestIssuer]:
    async with issuer() as made:
        yield made


@pytest.fixture
def more_settings(people: TestIssuer) -> dict[str, Any]:
    return {"issuers": [people.settings().model_dump()]}


def routes(gateway: Gateway) -> Iterator[tuple[str, str, Any]]:
    """Method, path, and what it declares; without health and what anybody may load."""
    for context in iter_route_contexts(gateway.shell.app.routes):
        path = str(context.path)
        if not isinstance(context.original_route, APIRoute) or path.startswith(INTERNAL):
            continue
        for method in sorted(context.methods or ()):
            if path not in HEALTH and not (method in READING and is_public(path)):
                yield method, path, declared(context.dependencies)


def at(path: str) -> str:
    return path.format_map(type("Named", (dict,), {"__missing__": lambda self, key: "x"})(PLACES))


class Person:
    def __init__(self, gateway: Gateway, people: TestIssuer, roles: dict[str, str]) -> None:
        self._http = gateway.http
        self._headers = {
            "authorization": f"Bearer {people.token(flowerbed_roles=roles)}",
        }

    async def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Only as far as the status and, of what ends, the body: a feed never ends."""
        if method not in ("GET", "DELETE") and not request:
            request = {"json": {}}
        async with self._http.stream(method, path, headers=self._headers, **request) as answer:
            if "event-stream" not in answer.headers.get("content-type", ""):
                await answer.aread()
        return answer


async def test_every_route_declares_the_role_that_it_needs(gateway: Gateway) -> None:
    found = list(routes(gateway))
    assert len(found) >= 18
    undeclared = [f"{method} {path}" for method, path, needs in found if needs is None]
    assert undeclared == [], "give each `dependencies=[VIEWER]` (or OPERATOR, ADMIN)"


async def test_each_route_lets_in_its_role_and_those_above_and_nobody_else(
    gateway: Gateway, people: TestIssuer
) -> None:
    await gateway.hear(whole_story().told)
    persons = {role: Person(gateway, people, {TENANT: role.name}) for role in Role}
    stranger = Person(gateway, people, {})
    wrong = []
    for method, path, needs in routes(gateway):
        assert needs is not None
        where = f"{method} {path}"
        anonymous = await gateway.http.request(method, at(path), headers={"authorization": ""})
        if anonymous.status_code != 401:
            wrong.append(f"{where}: {anonymous.status_code} without a token")
        if needs.role is None:
            continue
        request = await _asked(path)
        status = (await stranger.ask(method, at(path), **request)).status_code
        if status != 403:
            wrong.append(f"{where}: {status} without a role")
        for role, person in persons.items():
            status = (await person.ask(method, at(path), **request)).status_code
            if (status == 403) != (role < needs.role) or status == 401 or status >= 500:
                wrong.append(f"{where}: {status} as {role}, it needs {needs.role}")
    assert wrong == []


async def _asked(path: str) -> dict[str, Any]:
    if path == "/federations":
        return {"json": document()}
    if path == "/clients/invites":
        return {"json": {"tenant": TENANT}}
    return {}


async def test_what_is_another_tenants_looks_as_if_it_were_not_there(
    gateway: Gateway, people: TestIssuer
) -> None:
    await gateway.hear(whole_story().told)
    rival = Person(gateway, people, {OTHER: "admin"})
    told = []
    for method, path, _ in routes(gateway):
        if not {"{federation_id}", "{client_id}", "{sha256}"} & set(path.split("/")):
            continue
        body: dict[str, Any] = {} if method == "GET" else {"json": {}}
        mine = await rival.ask(method, at(path), **body)
        missing = await rival.ask(method, at(path).replace(FED, "fed-none"), **body)
        if mine.status_code not in (404, 422) or mine.status_code != missing.status_code:
            told.append(f"{method} {path}: {mine.status_code} and {missing.status_code}")
        named = await rival.ask(method, at(path), params={"tenant": TENANT}, **body)
        unknown = await rival.ask(method, at(path), params={"tenant": "nobodys"}, **body)
        if (named.status_code, unknown.status_code) != (403, 403):
            told.append(f"{method} {path}: {named.status_code} where the tenant is named")
    assert told == []
    assert gateway.behind.asked == []


async def test_lists_hold_what_the_principal_may_see(gateway: Gateway, people: TestIssuer) -> None:
    await gateway.hear(whole_story().told)

    async def seen(roles: dict[str, str], path: str, items: str, **params: str) -> set[str]:
        answer = await Person(gateway, people, roles).ask("GET", path, params=params)
        assert answer.status_code == 200, answer.text
        return {one["tenant"] for one in answer.json()[items]}

    for path, items in (("/federations", "federations"), ("/clients", "clients")):
        everything = await seen({"*": "viewer"}, path, items)
        assert {TENANT} <= everything
        assert await seen({TENANT: "viewer"}, path, items) == {TENANT}
        both = {TENANT: "viewer", OTHER: "viewer"}
        assert await seen(both, path, items, tenant=TENANT) == {TENANT}
        unnamed = await Person(gateway, people, both).ask("GET", path)
        assert (unnamed.status_code, unnamed.json()["code"]) == (400, "tenant-needed")
        assert "acme, rival" in unnamed.json()["detail"]


async def test_a_spec_belongs_to_a_tenant_in_which_its_author_is_an_operator(
    gateway: Gateway, people: TestIssuer
) -> None:
    for roles, tenant, status in (
        ({TENANT: "operator"}, TENANT, 202),
        ({TENANT: "operator"}, OTHER, 422),
        ({TENANT: "operator", OTHER: "operator"}, OTHER, 202),
        ({TENANT: "operator", OTHER: "viewer"}, OTHER, 422),
        ({TENANT: "operator", "third": "operator"}, OTHER, 403),
        ({"*": "viewer", TENANT: "operator"}, OTHER, 422),
        ({"*": "operator"}, OTHER, 202),
    ):
        person = Person(gateway, people, roles)
        answer = await person.ask("POST", "/federations", json=document(tenant=tenant))
        assert answer.status_code == status, (roles, tenant, answer.text)


async def test_an_invite_is_for_the_one_tenant_of_its_admin_unless_it_names_another(
    gateway: Gateway, people: TestIssuer
) -> None:
    one = Person(gateway, people, {TENANT: "admin"})
    assert (await one.ask("POST", "/clients/invites", json={})).status_code == 200
    assert gateway.behind.asked[-1][2]["tenant"] == TENANT
    refused = await one.ask("POST", "/clients/invites", json={"tenant": OTHER})
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    everywhere = Person(gateway, people, {"*": "admin"})
    await everywhere.ask("POST", "/clients/invites", json={})
    assert gateway.behind.asked[-1][2]["tenant"] == "default"


async def test_who_asks_is_told_who_they_are(gateway: Gateway, people: TestIssuer) -> None:
    found = await Person(gateway, people, {TENANT: "viewer"}).ask("GET", "/whoami")
    assert found.json() == {
        "subject": "alice", "issuer": people.url, "actor": f"{people.url}#alice",
        "roles": {TENANT: "viewer"},
    }  # fmt: skip
    nobody = await Person(gateway, people, {}).ask("GET", "/whoami")
    assert (nobody.status_code, nobody.json()["roles"]) == (200, {})


async def test_while_the_issuer_is_away_its_people_are_asked_to_come_again(
    gateway: Gateway, people: TestIssuer
) -> None:
    await people.stop()
    answer = await Person(gateway, people, {TENANT: "viewer"}).ask("GET", "/federations")
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    local = await gateway.http.get("/federations")
    assert local.status_code == 200
