"""Who did what: in the events of the services that did it, and in the gateway's own trail."""

import json
import os
import subprocess
from typing import Any

from flowerbed.cli.api import Refused
from tests.e2e.documents import hospital
from tests.support.field import FLOWERBED, Field, until


def test_the_actor_of_a_command_is_in_the_events_and_in_the_trail(field: Field) -> None:
    nobody = {"tags": ["nobody-has-this"]}
    identity = field.submit(hospital(client_selector=nobody))
    until(lambda: field.api.federation(identity)["status"] == "created", "it is created")
    field.api.post(f"/federations/{identity}/pause", {"reason": "to see who it was"})
    field.api.post(f"/federations/{identity}/cancel")
    invited = field.api.post("/clients/invites", {"tenant": "acme", **nobody})
    known = f"/clients/{invited['client_id']}/revoke"
    until(lambda: _revoked(field, known), "the gateway has heard of the client")

    def told() -> dict[str, Any] | None:
        events = field.api.get(f"/federations/{identity}/events", limit=1000)["events"]
        found = {one["type"]: one["actor"] for one in events}
        return found if "fl.federation.cancelled" in found else None

    actors = until(told, "the gateway has heard of it")
    for fact in ("created", "paused", "cancelled"):
        assert actors[f"fl.federation.{fact}"] == "local-token"
    rows = _audit(field, "--federation", identity)
    assert [(row["action"], row["actor"], row["status"]) for row in rows] == [
        ("cancel", "local-token", 200),
        ("pause", "local-token", 200),
        ("submit", "local-token", 202),
    ]
    recent = {row["action"] for row in _audit(field, "--since", "10m", "--limit", "1000")}
    assert {"invite", "revoke"} <= recent


def _revoked(field: Field, path: str) -> bool:
    try:
        field.api.post(path, {"reason": "only a test"})
    except Refused as refused:
        assert refused.status == 404
        return False
    return True


def _audit(field: Field, *arguments: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [FLOWERBED, "audit", *arguments, "--output", "json"],
        env={**os.environ, "FLOWERBED_STATE_DIR": str(field.stack.state_dir)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows
