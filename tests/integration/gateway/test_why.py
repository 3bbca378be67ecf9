"""Why is this run not moving? From recorded events in a real Postgres, and over HTTP."""

from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi.responses import JSONResponse

from flowerbed.contracts.client import ClientDeclined, ClientLeaseIssued
from flowerbed.contracts.federation import FederationFailed, FederationPolicyChanged
from flowerbed.contracts.policy import RoundPolicy
from flowerbed.gateway.reads import Reads
from flowerbed.gateway.why.view import Why
from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.story import (
    CLIENTS,
    FED,
    NOON,
    OTHER,
    REFUSED,
    TENANT,
    Story,
    whole_story,
)

LIFE = (
    "clients-to-join", "start-due",
    "clients-to-train", "fold-due", "next-attempt-due",
    "clients-to-train", "updates-to-screen", "fold-due", "checkpoint-to-record",
    "evaluation-start-due",
    "clients-to-evaluate", "evaluations-to-screen", "evaluation-close-due", "round-end-due",
    "next-round-due",
    "paused", "next-round-due",
    "clients-to-train", "updates-to-screen", "fold-due", "checkpoint-to-record",
    "evaluation-start-due",
    "clients-to-evaluate", "evaluations-to-screen", "evaluation-close-due", "round-end-due",
    "end-due", "completed",
)  # fmt: skip


def _told_until(story: Story, event_type: str, nth: int = 1) -> Story:
    """The story up to and with the nth event of the type."""
    places = [place for place, one in enumerate(story.told, 1) if one.type == event_type]
    told = story.told[: places[nth - 1]]
    versions = story.versions.copy()
    versions.update({one.stream: one.version for one in told})
    return Story(told=told, versions=versions)


async def _why(gateway: Gateway, at: datetime, tenant: str | None = TENANT) -> Why:
    return await Reads(gateway.made.database).why(tenant, FED, at, (), ())


async def _get(gateway: Gateway, federation_id: str = FED, **params: Any) -> httpx.Response:
    return await gateway.http.get(f"/federations/{federation_id}/why", params=params)


async def test_every_event_of_a_life_gives_an_answer(gateway: Gateway) -> None:
    """Told event by event, what is due next is named, and on whom; it is never missing."""
    story = whole_story()
    n_before = len(_told_until(story, "fl.federation.created").told) - 1
    await gateway.hear(story.told[:n_before])
    codes: list[str] = []
    for place, one in enumerate(story.told[n_before:], n_before + 1):
        await gateway.hear([one])
        found = await _why(gateway, NOON + timedelta(seconds=place))
        assert found.waits.what and (found.on or found.status == "completed")
        if found.waits.code not in codes[-1:]:
            codes.append(found.waits.code)
    assert tuple(codes) == LIFE


async def test_the_last_error_is_the_clients_own_with_its_label(gateway: Gateway) -> None:
    await gateway.hear(_told_until(whole_story(), "fl.round.failed").told)

    found = await _why(gateway, NOON + timedelta(minutes=1))

    error = found.last_error
    assert error is not None
    assert (error.code, error.detail, error.where) == (
        "app-failed", "out of memory", "round 1, train",
    )  # fmt: skip
    assert (error.client_id, error.label) == (CLIENTS[0], f"hospital-{CLIENTS[0]}")


async def test_a_site_that_declines_says_why_until_it_is_offered_a_new_lease(
    gateway: Gateway,
) -> None:
    story = _told_until(whole_story(), "fl.client.lease_issued")
    facts = {
        "client_id": CLIENTS[0], "federation_id": FED, "lease_id": f"lease-{CLIENTS[0]}",
    }  # fmt: skip
    stream = f"lease-{FED}-{CLIENTS[0]}"
    declined = ClientDeclined(**facts, epoch=1, code="dataset-gone", detail="no folder")
    story.tell(stream, declined)
    await gateway.hear(story.told)

    found = await _why(gateway, NOON + timedelta(minutes=1))
    first = next(one for one in found.on if one.id == CLIENTS[0])
    assert "declined the lease" in first.doing and "dataset-gone: no folder" in first.doing
    assert found.last_error is not None and found.last_error.code == "dataset-gone"
    enrolled = [one for one in found.on if "has not asked for work" in one.doing]
    assert {one.id for one in enrolled} == set(CLIENTS[1:])

    n = len(story.told)
    story.tell(stream, ClientLeaseIssued(**facts, epoch=2, ttl_seconds=60))
    await gateway.hear(story.told[n:])
    found = await _why(gateway, NOON + timedelta(minutes=1))
    first = next(one for one in found.on if one.id == CLIENTS[0])
    assert "was offered a lease" in first.doing


async def test_a_changed_policy_decides_what_happens_then(gateway: Gateway) -> None:
    story = _told_until(whole_story(), "fl.round.started")
    before = "attempt 2 of 3 starts with the same clients"
    await gateway.hear(story.told)
    assert before in (await _why(gateway, NOON + timedelta(minutes=1))).then

    n = len(story.told)
    policy = RoundPolicy(max_attempts=1).model_dump(mode="json")
    changed = FederationPolicyChanged(federation_id=FED, policy=policy, changed=("max_attempts",))
    story.tell(f"federation-{FED}", changed)
    await gateway.hear(story.told[n:])
    assert "attempt 1 of 1 was the last" in (await _why(gateway, NOON + timedelta(minutes=1))).then


async def test_how_it_ended_is_told_too(gateway: Gateway) -> None:
    story = _told_until(whole_story(), "fl.round.failed")
    failed = FederationFailed(federation_id=FED, code="round-failed", reason="3 of 3 attempts")
    story.tell(f"federation-{FED}", failed)
    await gateway.hear(story.told)
    await gateway.hear(whole_story().told[-2:])

    found = (await _get(gateway)).json()
    assert (found["status"], found["waits"]["code"], found["on"]) == ("failed", "failed", [])
    assert "round-failed: 3 of 3 attempts" in found["waits"]["what"]
    assert found["last_error"]["detail"] == "out of memory"
    refused = (await _get(gateway, REFUSED)).json()
    assert refused["waits"]["code"] == "rejected"
    assert "1 broken rule" in refused["waits"]["what"]


async def test_a_parked_federation_is_said_whatever_else_it_waits_for(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "flowerbed.gateway.why.routes.PATIENCE", 30.0
    )  # on a busy machine a second is not enough
    await gateway.hear(_told_until(whole_story(), "fl.round.started").told)
    letter = {
        "consumer": "orchestrator", "lane": FED, "tenant": TENANT, "stream": f"federation-{FED}",
        "version": 3, "subject": f"fl.round.started.{TENANT}.{FED}", "error": "ValueError: no",
        "parked_at": "2026-01-01T12:10:00Z",
    }  # fmt: skip
    other = {**letter, "lane": "fed-other"}
    gateway.behind.answers["/internal/dead-letters"] = JSONResponse([letter, letter, other])

    found = (await _get(gateway, tenant=TENANT)).json()

    assert (found["waits"]["code"], found["is_overdue"]) == ("parked", True)
    assert {one["id"] for one in found["on"]} == {
        "orchestrator", "lease", "aggregator", "artifact",
    }  # fmt: skip
    assert found["since"] == "2026-01-01T12:10:00Z"
    doing = found["on"][0]["doing"]
    assert f"fl.round.started (federation-{FED}@3), and 1 event behind it: ValueError" in doing
    assert found["last_error"]["code"] == "dead-letter"
    replay = f"flowerbed dead-letters replay --service lease --federation {FED}"
    assert replay in found["hints"]


async def test_a_service_that_does_not_answer_is_overdue(gateway: Gateway) -> None:
    story = _told_until(whole_story(), "fl.aggregate.completed", 2)
    await gateway.hear(story.told)
    at = story.told[-1].recorded_at + timedelta(seconds=1)

    calm = await _why(gateway, at)
    away = await Reads(gateway.made.database).why(TENANT, FED, at, (), ("artifact",))

    assert (calm.waits.code, calm.is_overdue) == ("checkpoint-to-record", False)
    assert (away.waits.code, away.is_overdue) == ("checkpoint-to-record", True)
    assert "it does not answer" in away.on[0].doing and "flowerbed logs artifact" in away.hints
    await gateway.behind.stop()
    found = (await _get(gateway)).json()
    assert found["waits"]["code"] == "checkpoint-to-record" and found["is_overdue"]


async def test_another_tenants_federation_is_not_found(gateway: Gateway) -> None:
    await gateway.hear(whole_story().told)
    assert (await _get(gateway, tenant=OTHER)).status_code == 404
    assert (await _get(gateway, "fed-none")).status_code == 404
    assert gateway.behind.asked == []
    gateway.http.headers.pop("authorization")
    assert (await _get(gateway)).status_code == 401
