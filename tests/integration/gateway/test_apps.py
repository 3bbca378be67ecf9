"""Push an app of one's own through the gateway, see it, and name it in a spec."""

import asyncio
import json
from typing import Any

from fastapi.responses import JSONResponse

from flowerbed.contracts.apps import AppPushed, bundle_uri
from flowerbed.contracts.bundle import LARGEST_BUNDLE
from flowerbed.events.jetstream import Bus
from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.story import OTHER, TENANT, Story, document
from tests.support.apps import bundle, digest

RAW = bundle()
SHA256 = digest(RAW)


def pushed(tenant: str = TENANT, **changes: Any) -> AppPushed:
    return AppPushed(
        **{
            "sha256": SHA256, "size": len(RAW), "uri": bundle_uri("flowerbed", tenant, SHA256),
            "name": "drift", "version": "1.2.0", "publisher": "alice", "pushed_by": "alice",
            **changes,
        }
    )  # fmt: skip


async def hear(gateway: Gateway) -> None:
    """The app as two tenants have it."""
    story = Story()
    for tenant in (TENANT, OTHER):
        story.tell(f"app-{tenant}-{SHA256}", pushed(tenant), tenant)
    await gateway.hear(story.told)


def own(**spec: Any) -> dict[str, Any]:
    more = {"app": f"fab:{SHA256}", "model_ref": {"uri": "app:drift.task:Net"}, **spec}
    written = document()
    return {**written, "spec": {**written["spec"], **more}}


async def test_a_bundle_is_handed_on_to_its_owner_as_it_came(gateway: Gateway) -> None:
    gateway.behind.answers["/internal/apps"] = JSONResponse(pushed().model_dump())
    answer = await gateway.http.post("/apps", content=RAW, params={"tenant": TENANT})
    assert answer.json() == pushed().model_dump()
    assert gateway.behind.asked == [("POST", "/internal/apps", RAW)]
    assert gateway.behind.actors == ["local-token"]
    (row,) = (await gateway.http.get("/audit")).json()["rows"]
    assert (row["action"], row["tenant"], row["status"]) == ("push_app", TENANT, 200)


async def test_a_bundle_may_be_larger_than_other_bodies_and_no_larger(gateway: Gateway) -> None:
    large = b"0" * LARGEST_BUNDLE
    assert (await gateway.http.post("/apps", content=large)).status_code == 200
    ((_, _, received),) = gateway.behind.asked
    assert received == large
    answer = await gateway.http.post("/apps", content=large + b"0")
    assert (answer.status_code, answer.json()["code"]) == (413, "body-too-large")
    other = await gateway.http.post("/federations", content=large)
    assert other.status_code == 413
    assert len(gateway.behind.asked) == 1


async def test_each_tenant_sees_its_own_apps(gateway: Gateway, fresh_streams: Bus) -> None:
    await hear(gateway)
    everywhere = (await gateway.http.get("/apps")).json()["apps"]
    assert {one["tenant"] for one in everywhere} == {TENANT, OTHER}
    (one,) = (await gateway.http.get("/apps", params={"tenant": TENANT})).json()["apps"]
    assert (one["app"], one["name"], one["pushed_by"]) == (f"fab:{SHA256}", "drift", "alice")
    assert one["uri"] == bundle_uri("flowerbed", TENANT, SHA256)
    page = (await gateway.http.get("/apps", params={"limit": 1})).json()
    rest = (await gateway.http.get("/apps", params={"cursor": page["next_cursor"]})).json()
    assert [len(page["apps"]), len(rest["apps"])] == [1, 1]
    shown = await gateway.http.get(f"/apps/{SHA256}", params={"tenant": OTHER})
    assert [one["tenant"] for one in shown.json()["apps"]] == [OTHER]
    unknown = await gateway.http.get(f"/apps/{'0' * 64}")
    assert unknown.status_code == 404


async def test_a_spec_names_an_app_that_its_tenant_has_pushed(gateway: Gateway) -> None:
    path = f"/internal/apps/{SHA256}"
    gateway.behind.answers[path] = JSONResponse({"code": "not-found"}, 404)
    refused = await gateway.http.post("/federations", content=json.dumps(own()))
    assert (refused.status_code, refused.json()["code"]) == (422, "spec-refused")
    (problem,) = refused.json()["errors"]
    assert problem["path"] == "spec.app"
    assert f"pushed in tenant {TENANT!r}" in problem["allowed"]
    gateway.behind.answers[path] = JSONResponse({"sha256": SHA256})
    accepted = await gateway.http.post("/federations", content=json.dumps(own()))
    assert accepted.status_code == 202
    gateway.behind.answers[path] = JSONResponse({}, 500)
    away = await gateway.http.post("/federations", content=json.dumps(own()))
    assert away.status_code == 503
    await gateway.behind.stop()
    nobody, builtin = await asyncio.gather(
        gateway.http.post("/federations", content=json.dumps(own())),
        gateway.http.post("/federations", content=json.dumps(document())),
    )
    assert (nobody.status_code, builtin.status_code) == (503, 202)
