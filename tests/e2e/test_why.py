"""Why is this run not moving? Real federations are driven into each state and then asked.

Services and a runner are stopped (SIGSTOP), not killed: who stands still can be waited for.
"""

import json
import os
import signal
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # has no stubs
import numpy as np
import pytest
from click.testing import Result
from safetensors.numpy import save_file
from typer.testing import CliRunner

from flowerbed.artifact.blobs import Blobs, hash_file
from flowerbed.cli import federation as commands
from flowerbed.contracts.ids import federation_id
from tests.e2e.documents import hospital
from tests.e2e.test_nonsense import changed, nudged, put
from tests.support.field import ENDED, Field, process_of, until
from tests.support.rogue import Rogue

Why = dict[str, Any]


class Stops:
    """Who stands still now."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self._stopped: dict[str, int] = {}

    def stop(self, service: str) -> None:
        self._stopped[service] = process_of(self._field.stack, service)
        os.kill(self._stopped[service], signal.SIGSTOP)

    def go(self, *names: str) -> None:
        for name in names or list(self._stopped):
            os.kill(self._stopped.pop(name), signal.SIGCONT)


@pytest.fixture
def stops(field: Field) -> Iterator[Stops]:
    made = Stops(field)
    yield made
    made.go()


def why(field: Field, identity: str) -> Why:
    answer: Why = field.api.get(f"/federations/{identity}/why")
    assert answer["federation_id"] == identity and answer["waits"]["what"]
    assert bool(answer["on"]) == (answer["status"] not in ENDED)
    return answer


def waits_for(field: Field, identity: str, line: str) -> Why:
    """The answer as soon as the federation's one line begins so, or holds it."""
    until(
        lambda: line in (field.api.federation(identity)["waiting_for"] or ""),
        f"it waits for {line}",
        30,
    )
    return why(field, identity)


def on(answer: Why) -> set[str]:
    return {one["id"] for one in answer["on"]}


def until_of(answer: Why) -> datetime:
    return datetime.fromisoformat(answer["until"])


def cancel(field: Field, identity: str) -> None:
    field.api.post(f"/federations/{identity}/cancel", {"reason": "enough"})


def nobody(**spec: Any) -> dict[str, Any]:
    return hospital(client_selector={"tags": ["nobody"]}, **spec)


def test_without_clients_it_waits_for_some_and_paused_for_a_person(field: Field) -> None:
    identity = field.submit(nobody(min_clients=2))
    joining = waits_for(field, identity, "clients tagged nobody: 0 of 2 have joined, until")
    assert joining["waits"]["code"] == "clients-to-join"
    assert on(joining) == {"site-operator"}
    created = datetime.fromisoformat(joining["since"])
    assert until_of(joining) - created > timedelta(seconds=3590)
    assert joining["then"] == "the federation fails with too-few-clients"
    assert "flowerbed client invite --tags nobody" in joining["hints"]

    field.api.post(f"/federations/{identity}/pause", {"reason": "lunch"})
    paused = waits_for(field, identity, "a person to resume it")
    assert (paused["waits"]["code"], paused["status"]) == ("paused", "paused")
    assert [(one["kind"], one["doing"]) for one in paused["on"]] == [("person", "paused it: lunch")]
    assert until_of(paused) - datetime.fromisoformat(paused["since"]) > timedelta(days=29)
    assert paused["then"] == "the federation fails with paused-too-long"

    field.api.post(f"/federations/{identity}/resume")
    assert waits_for(field, identity, "clients tagged")["waits"]["code"] == "clients-to-join"
    cancel(field, identity)
    until(lambda: field.api.federation(identity)["status"] == "cancelled", "it is cancelled")
    over = why(field, identity)
    assert over["waits"] == {
        "code": "cancelled", "what": "nothing any more: a person cancelled it: enough",
    }  # fmt: skip


def test_a_federation_that_nobody_joins_in_time_says_so_afterwards(field: Field) -> None:
    identity = field.submit(nobody(round_policy={"join_deadline_seconds": 1.0}))
    field.ended(identity, 20)
    over = why(field, identity)
    assert (over["status"], over["waits"]["code"]) == ("failed", "failed")
    assert "too-few-clients: 0 of 4 clients had joined" in over["waits"]["what"]
    assert over["last_error"]["code"] == "too-few-clients"


def test_each_service_is_named_while_it_stands_still(field: Field, stops: Stops) -> None:
    """One federation from service to service: each is let go when the next one is stopped."""
    stops.stop("orchestrator")
    identity = field.submit(hospital(num_rounds=1))
    chain = [
        # (line, code, who, whom to stop next, a part of `then`)
        ("the orchestrator, which", "not-taken-up", "orchestrator", "aggregator", "is created"),
        ("the base checkpoint", "base-to-make", "aggregator", "artifact", "too-few-clients"),
        ("read back", "base-to-record", "artifact", "orchestrator", "too-few-clients"),
        ("the first round", "start-due", "orchestrator", "aggregator", "too-few-clients"),
        ("to judge 4", "updates-to-screen", "aggregator", "artifact", "takes what it has"),
        ("new checkpoint", "checkpoint-to-record", "artifact", "orchestrator", "attempt 2 of 3"),
        ("the evaluation to", "evaluation-start-due", "orchestrator", "aggregator",
         "attempt 2 of 3"),
        ("to judge 4", "evaluations-to-screen", "aggregator", "orchestrator",
         "without its evaluation"),
        ("the round to end", "round-end-due", "orchestrator", "", "the round completes"),
    ]  # fmt: skip
    for line, code, service, following, then in chain:
        answer = waits_for(field, identity, line)
        assert (answer["waits"]["code"], on(answer)) == (code, {service})
        assert answer["is_overdue"] and "it does not answer" in answer["on"][0]["doing"]
        assert f"flowerbed logs {service}" in answer["hints"]
        assert then in answer["then"]
        assert (answer["until"] is None) == (code == "not-taken-up")
        if following:
            stops.stop(following)
        stops.go(service)
    field.completed(identity)
    over = why(field, identity)
    assert (over["waits"]["code"], over["last_error"], over["then"]) == ("completed", None, "")


def test_a_silent_site_is_named_with_its_label_and_a_pause_waits_beside_it(field: Field) -> None:
    train = {"local_epochs": 300, "learning_rate": 0.005, "seed": 3}
    identity = field.submit(hospital(num_rounds=2, train=train))
    site = field.sites[0]
    until(lambda: site.training_now(identity), "the site trains")
    with site.frozen():
        _shows_who_is_silent_and_the_pause(field, identity)
    between = waits_for(field, identity, "a person to resume it, until")
    assert between["waits"]["code"] == "paused"
    cancel(field, identity)


def _shows_who_is_silent_and_the_pause(field: Field, identity: str) -> None:
    silent = waits_for(field, identity, "round 1, train: 1 of 4 clients")
    (client,) = silent["on"]
    assert (silent["waits"]["code"], client["kind"]) == ("clients-to-train", "client")
    assert client["label"].startswith("hospital-")
    assert client["doing"].startswith("was ordered training ")
    assert "its lease is alive" in client["doing"]
    assert until_of(silent) - datetime.fromisoformat(silent["since"]) > timedelta(seconds=590)
    assert "attempt 2 of 3 starts with the same clients" in silent["then"]
    assert "unless 4 updates are accepted (" in silent["then"]

    field.api.post(f"/federations/{identity}/pause", {"reason": "a look"})
    paused = waits_for(field, identity, "a person to resume it; the open exchange goes on")
    assert paused["waits"]["code"] == "paused-in-round"
    assert on(paused) == {"operator", client["id"]}


def test_a_failing_app_is_shown_with_its_traceback_and_label(field: Field, tmp_path: Path) -> None:
    """A base checkpoint of another model: every site's app fails to load it."""
    base = tmp_path / "other.safetensors"
    save_file({"other.weight": np.zeros((2, 2), dtype=np.float32)}, base)
    s3 = field.stack.s3
    blobs = Blobs(s3.endpoint, s3.access_key, s3.secret_key)
    stored = blobs.put_if_absent(s3.bucket, "other.safetensors", base, hash_file(base))
    identity = field.submit(
        hospital(
            model_ref={"uri": stored.uri, "sha256": stored.sha256},
            round_policy={"max_attempts": 2},
        )
    )
    assert field.ended(identity, 60)["status"] == "failed"
    # The gateway hears of rounds and of clients on two streams: the cause may come after all else.
    over = until(lambda: caused_by(field, identity, "app-failed"), "a client is named as the cause")
    assert "round-failed: round 1 failed 2 of 2 attempts" in over["waits"]["what"]
    error = over["last_error"]
    assert error["where"] == "round 1, attempt 2, train"
    assert error["detail"].startswith("RuntimeError: Error(s) in loading state_dict")
    assert "load_net" in error["traceback"] and len(error["traceback"].splitlines()) > 2
    assert error["label"].startswith("hospital-") and error["client_id"]

    written = until(lambda: written_at(field, identity, error["label"]), "the app's log lines")
    assert "Error(s) in loading state_dict" in written
    assert "Traceback" in written and "File <path>, line" in written
    assert str(field.sites[0].folder.parent) not in written

    shown = cli(identity, field.stack.state_dir)
    assert shown.exit_code == 0 and "round-failed" in shown.stdout
    assert "in load_net" in shown.stdout and error["label"] in shown.stdout


def caused_by(field: Field, identity: str, code: str) -> Why | None:
    answer = why(field, identity)
    return answer if (answer["last_error"] or {}).get("code") == code else None


def written_at(field: Field, identity: str, label: str) -> str:
    """What the ClientApp of that site wrote, up to the end of its traceback."""
    page = field.api.get(f"/federations/{identity}/logs", client=label)
    text = "\n".join(line["text"] for line in page["lines"])
    return text if "Error(s) in loading" in text else ""


async def test_a_parked_federation_names_the_service_and_how_to_go_on(field: Field) -> None:
    """The aggregator has something of this federation that it could not handle."""
    key = f"parked-{os.getpid()}"
    identity = federation_id("acme", key)
    await parked(field, identity, "INSERT INTO dead_letters (consumer, lane, tenant, stream,"
        " version, event_id, subject, headers, data, error, attempts) VALUES ('orchestrator', $1,"
        " 'acme', 'federation-' || $1, 0, 'x', 'fl.federation.created.acme.' || $1, '{}', '',"
        " 'ValueError: not a number', 5)")  # fmt: skip
    field.api.submit(json.dumps(nobody()).encode(), key)
    answer = until(lambda: stuck(field, identity), "the created event is parked behind it", 20)
    assert on(answer) == {"aggregator"} and answer["is_overdue"]
    assert "ValueError: not a number" in answer["on"][0]["doing"]
    assert "and 1 event behind it" in answer["on"][0]["doing"]
    assert answer["last_error"]["code"] == "dead-letter"
    replay = f"flowerbed dead-letters replay --service aggregator --federation {identity}"
    assert replay in answer["hints"]
    assert answer["then"] == "the federation fails with too-few-clients"

    await parked(field, identity, "DELETE FROM dead_letters WHERE lane = $1 AND version = 0")
    body = {"service": "aggregator", "federation_id": identity}
    assert field.api.post("/dead-letters/replay", body)["lanes"][0]["replayed"] == 1
    assert waits_for(field, identity, "clients tagged")["waits"]["code"] == "clients-to-join"
    cancel(field, identity)


async def parked(field: Field, identity: str, statement: str) -> None:
    connection = await asyncpg.connect(field.stack.postgres_dsn("aggregator", "app"))
    try:
        async with connection.transaction():
            await connection.execute("SELECT set_config('flowerbed.tenant', 'acme', true)")
            await connection.execute(statement, identity)
    finally:
        await connection.close()


def stuck(field: Field, identity: str) -> Why | None:
    """Once the gateway knows besides that it is created."""
    if field.api.federation(identity)["status"] == "submitted":
        return None
    answer = why(field, identity)
    is_parked = answer["waits"]["code"] == "parked" and "behind it" in answer["on"][0]["doing"]
    return answer if is_parked else None


def test_an_unknown_federation_is_bad_input_and_no_stack_is_not_running(
    field: Field, tmp_path: Path
) -> None:
    assert cli("fed-none", field.stack.state_dir).exit_code == 2
    assert cli("fed-none", tmp_path / "none").exit_code == 3


def cli(identity: str, state_dir: Path) -> Result:
    elsewhere = {"FLOWERBED_URL": None, "FLOWERBED_TOKEN": None}
    arguments = ["why", identity, "--state-dir", str(state_dir)]
    return CliRunner().invoke(commands.app, arguments, env=elsewhere)


def test_clients_that_hesitate_leave_and_are_missing_are_named(
    field: Field, tmp_path: Path
) -> None:
    """Two hand-made clients: one is honest, the other leaves in the middle of the round."""
    honest, fickle = (
        Rogue.enrol(field.invite("acme", "why"), tmp_path / name) for name in ("a", "b")
    )
    identity = field.submit(
        hospital(
            min_clients=2,
            client_selector={"tags": ["why"]},
            round_policy={"quorum": 0.5, "deadline_seconds": 8.0},
        )
    )
    label = f"hospital-{'0' * 36}"
    honest.join(identity, {"label": label, "sha256": "a" * 64})
    until(fickle.offers, "a lease is offered", 10)
    joining = waits_for(field, identity, "clients tagged why: 1 of 2 have joined, until")
    assert doing(joining, fickle).startswith("was offered a lease ")

    fickle.join(identity, {"label": label, "sha256": "b" * 64})
    training = waits_for(field, identity, "round 1, train: 2 of 2 clients")
    assert on(training) == {honest.client_id, fickle.client_id}
    order = honest.next_order()
    assert order is not None
    honest.report(order, put(order, changed(order, nudged))).raise_for_status()
    release = {"epoch": fickle.epoch, "reason": "maintenance"}
    fickle.post(f"/v1/leases/{fickle.lease_id}/release", release).raise_for_status()
    left = until(lambda: gone(field, identity), "who is left is gone", 7)
    assert (left["waits"]["code"], on(left)) == ("client-dropped", {fickle.client_id})
    assert "maintenance" in doing(left, fickle)
    assert left["then"] == "the round closes with 1 accepted update"

    evaluating = waits_for(field, identity, "round 1, evaluate: 1 of 1 clients")
    assert evaluating["waits"]["code"] == "clients-to-evaluate"
    assert evaluating["then"].startswith("the round completes without its evaluation, unless")
    order = honest.next_order()
    assert order is not None
    honest.report(order, EVALUATED).raise_for_status()
    missing = waits_for(field, identity, "clients for round 2: 1 of 2 have joined, until")
    assert (missing["waits"]["code"], on(missing)) == (
        "clients-for-next-round",
        {fickle.client_id},
    )
    assert missing["then"] == "the federation fails with too-few-clients"
    cancel(field, identity)


EVALUATED = {"artifact": None, "n_examples": 5, "metrics": {"accuracy": 0.5}}


def gone(field: Field, identity: str) -> Why | None:
    answer = why(field, identity)
    is_gone = answer["waits"]["code"] == "client-dropped" and "closes with 1" in answer["then"]
    return answer if is_gone else None


def doing(answer: Why, client: Rogue) -> str:
    return next(str(one["doing"]) for one in answer["on"] if one["id"] == client.client_id)
