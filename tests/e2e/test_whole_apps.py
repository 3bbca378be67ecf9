"""Whole ServerApps, as people write them: killed on the way, they end with the same bytes."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from flowerbed.cli.bundling import bundle_of
from tests.support.apps import bundle
from tests.support.field import FLOWERBED, Field, until

APPS = Path("examples/apps")
SHAPES = ("plainstart", "ownloop", "ownstrategy", "queries", "memory", "ownpace", "oldstyle")

GUESSING = """
import time
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()


@app.main()
def main(grid, context):
    for number in range(6):
        content = RecordDict({"asked": ConfigRecord({"since": time.monotonic()})})
        grid.send_and_receive([Message(content, node, "query") for node in grid.get_node_ids()])
"""
ANSWERING = """
import time
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query()
def query(msg, context):
    time.sleep(0.5)
    return Message(RecordDict({"found": MetricRecord({"n": 1})}), reply_to=msg)
"""


@pytest.fixture
def open_field(field: Field) -> Iterator[Field]:
    """Sites of developers: whatever is pushed may run."""
    for site in field.sites:
        (site.home / "policy.json").write_text(json.dumps({"any_app": True}))
    yield field
    for site in field.sites:
        (site.home / "policy.json").unlink(missing_ok=True)


def submit(field: Field, raw: bytes) -> str:
    pushed = httpx.post(
        f"{field.stack.gateway_url}/apps", params={"tenant": "acme"}, content=raw,
        headers={"Authorization": f"Bearer {field.stack.api_token}"},
    )  # fmt: skip
    spec = {
        "app": f"fab:{pushed.json()['sha256']}", "server_app": "whole", "num_rounds": 3,
        "min_clients": 4, "train": {"seed": 7},
    }  # fmt: skip
    metadata = {"name": "whole", "tenant": "acme"}
    return field.submit({"apiVersion": "flowerbed/v1", "metadata": metadata, "spec": spec})


def facts(field: Field, identity: str, kind: str) -> list[dict[str, Any]]:
    events = field.api.get(f"/federations/{identity}/events", limit=1000)["events"]
    return [one["data"] for one in events if one["type"] == kind]


def done(field: Field, identity: str, kind: str) -> int:
    """How often it did that by now, whatever the gateway has heard of it."""
    return sum(one["type"] == kind for one in field.history_now("aggregator", identity))


def mains(field: Field) -> set[int]:
    """The processes in which a ServerApp runs here."""
    return {
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if "flowerbed.flower_apps.serve" in (process.info["cmdline"] or [])
        and any(str(field.stack.state_dir) in one for one in process.environ().values())
    }


def killed_on_the_way(field: Field, raw: bytes) -> str:
    """Its ServerApp dies in the middle, and afterwards the whole aggregator."""
    identity = submit(field, raw)
    site = field.sites[0]

    def pushed(n: int) -> bool:
        return done(field, identity, "fl.message.pushed") >= n

    until(lambda: pushed(2), "it has sent its second messages", 90)
    with site.held():
        (main,) = until(lambda: mains(field), "main runs")
        os.kill(main, signal.SIGKILL)
        until(lambda: done(field, identity, "fl.serverapp.restarted"), "it is started again")
        n = done(field, identity, "fl.message.pushed")
    until(lambda: pushed(n + 1), "it goes on", 90)
    with site.held():
        dead = field.kill("aggregator")
        until(lambda: field.is_back("aggregator", dead), "the aggregator is back")
    return identity


def ended(field: Field, identity: str) -> dict[str, Any]:
    """How it ended; what the bridge said before that, the gateway has heard as well."""
    kind = "fl.serverapp.completed"
    (fact,) = until(lambda: facts(field, identity, kind), "the gateway has heard how it ended")
    return fact


def told(field: Field, identity: str) -> list[list[str]]:
    """What was sent in each exchange, in any order, and all that came back."""
    ended(field, identity)
    pushed = facts(field, identity, "fl.message.pushed")
    pulled = facts(field, identity, "fl.message.pulled")
    replies = [one["reason"] or one["content"]["sha256"] for f in pulled for one in f["replies"]]
    sent = [[one["content"]["sha256"] for one in fact["cohort"]] for fact in pushed]
    return [*sorted(sent), sorted(replies)]


def files(field: Field, identity: str) -> dict[str, str]:
    """What it left in its folder, by digest, but for what tells how long it took."""
    return {
        entry["name"].rpartition("/")[2]: entry["artifact"]["sha256"]
        for entry in ended(field, identity)["files"]
        if not entry["name"].endswith("best.json")
    }


def fetched(field: Field, identity: str, to: Path) -> set[str]:
    """What a researcher gets of it: each file only if its bytes are right."""
    command = [FLOWERBED, "artifact", "files", identity, "--to", str(to)]
    environment = {**os.environ, "FLOWERBED_STATE_DIR": str(field.stack.state_dir)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return {str(path.relative_to(to)) for path in to.rglob("*") if path.is_file()}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_serverapp_that_was_killed_ends_with_the_bytes_of_one_that_was_not(
    open_field: Field, shape: str, tmp_path: Path
) -> None:
    field, raw = open_field, bundle_of(APPS / shape)
    disturbed = killed_on_the_way(field, raw)
    undisturbed = submit(field, raw)
    field.completed(disturbed)
    field.completed(undisturbed)
    assert facts(field, undisturbed, "fl.serverapp.restarted") == []
    assert told(field, disturbed) == told(field, undisturbed)
    (found,) = facts(field, disturbed, "fl.federation.completed")
    (expected,) = facts(field, undisturbed, "fl.federation.completed")
    assert found["final"]["sha256"] == expected["final"]["sha256"]
    assert files(field, disturbed) == files(field, undisturbed)
    n = len(facts(field, disturbed, "fl.message.pushed"))
    assert n == len(facts(field, undisturbed, "fl.message.pushed")) >= 6
    assert fetched(field, disturbed, tmp_path) == {
        one["name"] for one in ended(field, disturbed)["files"]
    }
    answered = facts(field, disturbed, "fl.message.answered")
    works = [one["work_id"] for one in answered]
    assert len(works) == len(set(works)), "no node has done the same work twice"


def test_an_app_that_does_something_else_when_run_again_is_found_out(open_field: Field) -> None:
    field = open_field
    changed = {"drift/server_app.py": GUESSING, "drift/client_app.py": ANSWERING}
    identity = submit(field, bundle(changed))
    until(lambda: done(field, identity, "fl.message.pulled") >= 2, "two exchanges", 90)
    (main,) = mains(field)
    os.kill(main, signal.SIGKILL)
    ended = field.ended(identity)
    assert (ended["status"], ended["code"]) == ("failed", "not-deterministic")
    assert "exchange 1, message 1 of 4 (query to node" in ended["reason"]
    assert "record 'asked', key 'since': was" in ended["reason"]
    assert "main must do the same when it is run again" in ended["reason"]
