"""What people read over HTTP, after the events came over NATS."""

from typing import Any

from flowerbed.events.rebuild import rebuild
from flowerbed.events.store import EventStore
from flowerbed.gateway.consumers import codec
from flowerbed.gateway.projections import PROJECTIONS
from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.story import (
    CLIENTS,
    FED,
    OTHER,
    REFUSED,
    TENANT,
    message,
    ref,
    whole_story,
)
from tests.support.servers import eventually


async def _get(gateway: Gateway, path: str, expected: int = 200, **params: Any) -> Any:
    answer = await gateway.http.get(path, params=params)
    assert answer.status_code == expected, answer.text
    return answer.json()


async def test_a_federation_tells_its_whole_life(gateway: Gateway) -> None:
    await gateway.hear(whole_story().told)

    found = await _get(gateway, f"/federations/{FED}")

    assert (found["status"], found["name"], found["waiting_for"]) == ("completed", "demo", None)
    assert found["final"] == {"sha256": ref("two").sha256, "uri": ref("two").uri}
    assert found["base"] == {"sha256": ref("base").sha256, "uri": ref("base").uri}
    assert found["metrics"] == {"accuracy": 0.9, "eval-loss": 0.25}
    assert [(one["round_number"], one["attempt"]) for one in found["rounds"]] == [
        (1, 1),
        (1, 2),
        (2, 1),
    ]
    failed, _, last = found["rounds"]
    counted = {name: n for name, n in failed["train_updates"].items() if n}
    assert counted == {"failed": 1, "rejected": 1, "quarantined": 1}
    assert last["train_updates"]["accepted"] == last["evaluate_updates"]["accepted"] == 3
    assert last["total_seconds"] > 0 and last["train_seconds"] == 1.5
    assert [one["client_id"] for one in found["clients"]] == list(CLIENTS)
    assert found["clients"][0]["tags"] == ["eu"]
    assert len(found["artifacts"]) == 5
    assert found["spec"]["metadata"]["tenant"] == TENANT


async def test_a_rounds_answers_are_listed_client_by_client(gateway: Gateway) -> None:
    await gateway.hear(whole_story().told)

    found = await _get(gateway, f"/federations/{FED}/rounds/1")

    assert [one["attempt"] for one in found["attempts"]] == [1, 2]
    first = [(one["exchange"], one["status"]) for one in found["updates"] if one["attempt"] == 1]
    assert first == [("train", "failed"), ("train", "rejected"), ("train", "quarantined")]
    assert len(found["updates"]) == 9
    await _get(gateway, f"/federations/{FED}/rounds/3", expected=404)


async def test_history_is_read_page_by_page_in_order_without_a_gap(gateway: Gateway) -> None:
    story = whole_story()
    await gateway.hear(story.told)
    mine = [one for one in story.told if one.context.correlation_id == FED]

    found: list[dict[str, Any]] = []
    after = 0
    while page := (await _get(gateway, f"/federations/{FED}/events", after=after, limit=7)):
        if not page["events"]:
            break
        found += page["events"]
        after = page["next_after"]

    assert {one["id"] for one in found} == {str(one.id) for one in mine}
    assert [one["position"] for one in found] == sorted({one["position"] for one in found})
    for stream in {one.stream for one in mine}:
        versions = [one["version"] for one in found if one["stream"] == stream]
        assert versions == list(range(1, len(versions) + 1))
    assert found[0]["causation_id"] == "why"

    before = found[-3]["position"]
    back = await _get(gateway, f"/federations/{FED}/events", before=before, limit=5)
    assert back["events"] == found[-8:-3]


async def test_lineage_goes_from_the_base_to_the_newest_checkpoint(gateway: Gateway) -> None:
    await gateway.hear(whole_story().told)

    found = await _get(gateway, f"/federations/{FED}/lineage")

    assert found["is_complete"] is True
    names = [ref(name).sha256 for name in ("base", "one", "two")]
    assert [one["sha256"] for one in found["checkpoints"]] == names
    assert found["checkpoints"][2]["parents"] == [names[1]]
    assert [one["weight"] for one in found["checkpoints"][2]["folded"]] == [10, 11, 12]


async def test_a_tenant_sees_its_own_and_nothing_else(gateway: Gateway) -> None:
    await gateway.hear(whole_story().told)

    mine = await _get(gateway, "/federations", tenant=TENANT)
    others = await _get(gateway, "/federations", tenant=OTHER)
    everything = await _get(gateway, "/federations")

    assert [one["federation_id"] for one in mine["federations"]] == [FED]
    assert [one["federation_id"] for one in others["federations"]] == [REFUSED]
    assert len(everything["federations"]) == 2
    clients = (await _get(gateway, "/clients", tenant=OTHER))["clients"]
    assert [one["client_id"] for one in clients] == ["client-r"]
    for path in ("", "/events", "/lineage", "/rounds/1"):
        await _get(gateway, f"/federations/{FED}{path}", expected=404, tenant=OTHER)
    await _get(gateway, f"/artifacts/{ref('two').sha256}", expected=404, tenant=OTHER)
    assert (await gateway.http.post(f"/federations/{FED}/cancel?tenant={OTHER}")).status_code == 404
    assert gateway.behind.asked == []


async def test_lists_are_filtered_and_paged(gateway: Gateway) -> None:
    await gateway.hear(whole_story().told)

    rejected = (await _get(gateway, "/federations", status="rejected"))["federations"]
    assert [one["federation_id"] for one in rejected] == [REFUSED]
    assert (await _get(gateway, "/federations", name="other"))["federations"] == []
    first = await _get(gateway, "/federations", limit=1)
    second = await _get(gateway, "/federations", limit=1, cursor=first["next_cursor"])
    shown = [page["federations"][0]["federation_id"] for page in (first, second)]
    assert shown == [REFUSED, FED]
    assert second["next_cursor"] is None
    page = await _get(gateway, "/clients", limit=3)
    rest = await _get(gateway, "/clients", limit=3, cursor=page["next_cursor"])
    assert len({one["client_id"] for one in page["clients"] + rest["clients"]}) == 5


async def test_a_query_that_cannot_be_is_a_problem(gateway: Gateway) -> None:
    wrong: tuple[dict[str, Any], ...] = (
        {"status": "odd"},
        {"limit": 0},
        {"limit": 501},
        {"tenant": "a.b"},
    )
    for params in wrong:
        found = await _get(gateway, "/federations", 422, **params)
        assert found["errors"][0]["path"] == f"query.{next(iter(params))}"
    for cursor in ("x", "bm9uc2Vuc2U", "WyJhIiwgImIiXQ", "W10"):
        found = await _get(gateway, "/federations", 400, cursor=cursor)
        assert found["code"] == "cursor-unreadable"


async def test_unknown_names_are_not_found(gateway: Gateway) -> None:
    for path in ("/federations/fed-none", f"/artifacts/{'0' * 64}", "/federations/x/events"):
        found = await _get(gateway, path, expected=404)
        assert found["code"] == "not-found"
    await _get(gateway, "/artifacts/short", expected=422)


async def test_events_that_come_again_are_kept_once(gateway: Gateway) -> None:
    story = whole_story()
    await gateway.hear(story.told)
    before = await _get(gateway, f"/federations/{FED}")

    owner = await gateway.make_bus("orchestrator")
    again = [one for one in story.told if one.stream == f"federation-{FED}"]
    for one in again:
        copy = message(one)
        headers = {**copy.headers, "Nats-Msg-Id": f"again-{one.id}"}
        await owner.publish(type(copy)(subject=copy.subject, headers=headers, data=copy.data))

    async def acknowledged() -> bool:
        return await gateway.shell.bus.pending("FL_ORCHESTRATOR", "gateway") == 0

    await eventually(acknowledged, "the repeated events are acknowledged")
    assert await _get(gateway, f"/federations/{FED}") == before


async def test_projections_are_rebuilt_while_the_gateway_serves(gateway: Gateway) -> None:
    story = whole_story()
    await gateway.hear(story.told)
    path = f"/federations/{FED}"
    before = await _get(gateway, path)

    owner = await gateway.made.owner()
    for projection in PROJECTIONS:
        await rebuild(owner, projection, EventStore(codec, PROJECTIONS))
        assert await _get(gateway, path) == before

    found = await _get(gateway, "/federations", tenant=OTHER)
    assert [one["federation_id"] for one in found["federations"]] == [REFUSED]
