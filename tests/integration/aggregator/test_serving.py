"""A whole ServerApp on a real bridge: asked for, answered, killed, found out, ended."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from flowerbed.aggregator import serving
from flowerbed.contracts.ids import work_id
from flowerbed.contracts.round import CohortMember
from flowerbed.contracts.server_app import MessageAnswered, ServerAppStarted
from flowerbed.events.database import Database
from flowerbed.events.store import EventStore
from flowerbed.flower_apps.contents import decoded, encoded
from tests.integration.aggregator.conftest import Garden
from tests.support.apps import bundle, digest
from tests.support.servers import eventually

MAIN = """
import {imports}
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import ServerApp
import numpy as np

app = ServerApp()


@app.main()
def main(grid, context):
    nodes, total = list(grid.get_node_ids()), np.zeros(2)
    for number in range(3):
        config = ConfigRecord({{"number": number, "odd": {odd}}})
        content = RecordDict({{"model": ArrayRecord([total]), "config": config}})
        replies = grid.send_and_receive([Message(content, node, "train") for node in nodes])
        total = total + sum(m.content["n"]["n"] for m in replies if m.has_content())
    print("in all", total.tolist(), [m.error.reason for m in replies if m.has_error()])
    open("total.txt", "w").write(str(total.tolist()))
    final = RecordDict({{"model": ArrayRecord([total])}})
    grid.push_messages([Message(final, nodes[0], "evaluate")])
"""
SAME = MAIN.format(imports="random", odd="random.random()")
ODD = MAIN.format(imports="time", odd="time.monotonic()")


OVERLAPPING = """
import time
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import ServerApp
import numpy as np

app = ServerApp()


@app.main()
def main(grid, context):
    total, waiting = np.zeros(1), set()

    def ask(node):
        content = RecordDict({"model": ArrayRecord([total])})
        waiting.update(grid.push_messages([Message(content, node, "train")]))

    for node in grid.get_node_ids():
        ask(node)
    n_heard = 0
    while n_heard < 4:
        for reply in grid.pull_messages(list(waiting)):
            waiting.discard(reply.metadata.reply_to_message_id)
            total, n_heard = total + reply.content["n"]["n"], n_heard + 1
            if n_heard < 4:
                ask(reply.metadata.src_node_id)
        time.sleep(0.05)
    ask(reply.metadata.src_node_id)
"""


async def serve(garden: Garden, main: str, **policy: Any) -> str:
    """A federation whose ServerApp that is, with two nodes; its stream."""
    raw = bundle({"drift/server_app.py": main})
    sha256 = digest(raw)
    garden.put(raw, key=f"apps/acme/{sha256}.fab")
    await garden.create(
        app=f"fab:{sha256}", server_app="whole", model_ref=None, code_hash=sha256,
        round_policy={"deadline_seconds": 60, **policy},
    )  # fmt: skip
    made = await garden.outcome(garden.stream(0, exchange="initialize"))
    assert made["checkpoint"]["sha256"] == sha256, made
    nodes = tuple(
        CohortMember(client_id=name, lease_id=f"l-{name}", lease_epoch=1, seed=1) for name in "ab"
    )
    deadline_at = datetime.now(UTC) + timedelta(seconds=60)
    fed = garden.federation_id
    await garden.orchestrate(
        ServerAppStarted(federation_id=fed, nodes=nodes, seed=3, deadline_at=deadline_at)
    )
    return f"serverapp-{fed}"


async def answer(garden: Garden, number: int, client: str, n: int | None) -> None:
    """As a site does: `n`, or that its app raised."""
    fed = garden.federation_id
    content = None
    if n is not None:
        raw = encoded(RecordDict({"n": MetricRecord({"n": n})}))
        content = garden.put(raw, key=f"checkpoints/updates/{fed}/{number}-1/{client}.recorddict")
    event = MessageAnswered(
        federation_id=fed, round_number=number, client_id=client, lease_epoch=1, content=content,
        work_id=work_id(fed, number, 1, "message", client),
        code="" if content else "app-failed", detail="" if content else "ValueError: no",
    )  # fmt: skip
    await garden.lease.say(f"lease-{fed}-{client}", fed, event)


async def pushed(garden: Garden, stream: str, number: int) -> dict[str, Any]:
    found: dict[str, Any] = {}

    async def there() -> bool:
        for name, data in await garden.events(stream):
            if name == "message.pushed" and data["round_number"] == number:
                found.update(data)
        return bool(found)

    await eventually(there, f"exchange {number}", timeout=90)
    return found


def kill_main(folder: str) -> None:
    (main,) = [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if "flowerbed.flower_apps.serve" in (process.info["cmdline"] or [])
        and folder in process.environ().get("HOME", "")
    ]
    os.kill(main, signal.SIGKILL)


async def played(garden: Garden, stream: str, disturb: Callable[[], None]) -> dict[str, Any]:
    """All exchanges, with a death between the second's two answers."""
    for number in (1, 2, 3):
        await pushed(garden, stream, number)
        await answer(garden, number, "b", 10 * number)
        if number == 2:
            disturb()
        await answer(garden, number, "a", number if number < 3 else None)
    return await garden.outcome(stream)


async def test_main_that_is_killed_goes_on_where_it_was(garden: Garden) -> None:
    stream = await serve(garden, SAME)
    ended = await played(garden, stream, lambda: kill_main(str(garden.settings.spool_directory)))
    assert ended["type"] == "aggregate.completed", ended
    events = await garden.events(stream)
    assert [name for name, _ in events] == [
        "message.pushed", "message.pulled", "message.pushed", "serverapp.restarted",
        "message.pulled", "message.pushed", "message.pulled", "message.pushed",
        "serverapp.completed", "aggregate.completed",
    ]  # fmt: skip
    by_name = dict(events)
    assert by_name["serverapp.restarted"]["reason"] == "killed by signal 9"
    completed = by_name["serverapp.completed"]
    assert (completed["arrays_from"], completed["n_exchanges"]) == ("last-sent", 4)
    assert [one["name"] for one in completed["files"]] == ["total.txt"]
    last = next(data for name, data in reversed(events) if name == "message.pulled")
    assert [one["error"] for one in last["replies"]] == [2, 0], "in the order of the messages"

    async def is_told() -> bool:
        path = f"/internal/federations/{garden.federation_id}/logs"
        lines = (await garden.http.get(path, params={"tenant": "acme"})).json()["lines"]
        return "in all [63.0, 63.0] ['app-failed: ValueError: no']" in [x["text"] for x in lines]

    await eventually(is_told, "its lines are there")


async def test_main_that_dies_while_a_pull_is_committed_is_told_as_every_other(
    garden: Garden, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was cut off from the word of the commit, not from what was committed."""
    stream = await serve(garden, SAME)
    late, committed = set[int](), asyncio.Event()
    append, transaction = EventStore.append, Database.transaction

    async def appended(self: Any, tx: Any, to: str, *args: Any, **more: Any) -> Any:
        if to == stream:
            late.add(id(tx))
        return await append(self, tx, to, *args, **more)

    @asynccontextmanager
    async def slowly(self: Any, tenant: str) -> AsyncIterator[Any]:
        async with transaction(self, tenant) as tx:
            yield tx
        if id(tx) in late and not committed.is_set():
            committed.set()
            await asyncio.sleep(60)

    await pushed(garden, stream, 1)
    monkeypatch.setattr(EventStore, "append", appended)
    monkeypatch.setattr(Database, "transaction", slowly)
    await asyncio.gather(*(answer(garden, 1, name, 1) for name in "ab"))
    await asyncio.wait_for(committed.wait(), 60)
    kill_main(str(garden.settings.spool_directory))
    for number in (2, 3):
        await pushed(garden, stream, number)
        await asyncio.gather(*(answer(garden, number, name, 1) for name in "ab"))
    assert (await garden.outcome(stream))["type"] == "aggregate.completed"
    assert [name for name, _ in await garden.events(stream)][:4] == [
        "message.pushed", "message.pulled", "serverapp.restarted", "message.pushed",
    ]  # fmt: skip


async def test_exchanges_that_overlap_end_each_by_itself_also_after_a_death(garden: Garden) -> None:
    """Each node is sent more as soon as it has answered, whatever the other does."""
    stream = await serve(garden, OVERLAPPING)
    await pushed(garden, stream, 2)
    await answer(garden, 2, "b", 1)
    await pushed(garden, stream, 3)
    kill_main(str(garden.settings.spool_directory))
    await answer(garden, 3, "b", 2)
    await pushed(garden, stream, 4)
    await asyncio.gather(answer(garden, 1, "a", 4), answer(garden, 4, "b", 8))
    ended = await garden.outcome(stream)
    assert ended["type"] == "aggregate.completed", ended
    events = await garden.events(stream)
    pulled = [data for name, data in events if name == "message.pulled"]
    assert [one["closed"] for one in pulled[:2]] == [[2], [3]]
    assert sorted(number for one in pulled for number in one["closed"]) == [1, 2, 3, 4]
    told = [(one["round_number"], one["node_id"]) for pull in pulled for one in pull["replies"]]
    assert sorted(number for number, _ in told) == [1, 2, 3, 4]
    asked = {
        (data["round_number"], one["node_id"])
        for name, data in events
        if name == "message.pushed"
        for one in data["cohort"]
    }
    assert set(told) < asked, "each reply is of the exchange that asked for it"


async def test_what_a_message_says_is_what_main_made_for_that_node(garden: Garden) -> None:
    stream = await serve(garden, SAME)
    first = await pushed(garden, stream, 1)
    a, b = first["cohort"]
    assert (a["client_id"], b["client_id"], a["place"], b["place"]) == ("a", "b", 0, 1)
    assert a["seed"] != b["seed"] and a["message_id"] != b["message_id"]
    assert a["content"] == b["content"], "stored once"
    path = garden.folder / "content"
    garden.blobs.download(a["content"]["uri"], path, sha256=a["content"]["sha256"])
    content = decoded(path.read_bytes())
    assert isinstance(content["model"], ArrayRecord)
    assert isinstance(content["config"], ConfigRecord) and content["config"]["number"] == 0


async def test_a_main_that_does_something_else_is_found_out(garden: Garden) -> None:
    stream = await serve(garden, ODD)
    await pushed(garden, stream, 1)
    kill_main(str(garden.settings.spool_directory))
    ended = await garden.outcome(stream)
    assert (ended["type"], ended["code"]) == ("aggregate.failed", "not-deterministic")
    assert "exchange 1, message 1 of 2 (train to node" in ended["reason"]
    assert "record 'config', key 'odd': was" in ended["reason"]


async def test_a_main_that_raises_fails_with_its_last_words(garden: Garden) -> None:
    stream = await serve(garden, SAME.replace("total = total + sum(", "total = total + len("))
    await pushed(garden, stream, 1)
    await asyncio.gather(*(answer(garden, 1, name, 1) for name in "ab"))
    ended = await garden.outcome(stream)
    assert (ended["type"], ended["code"]) == ("aggregate.failed", "app-failed")
    assert ended["reason"].startswith("TypeError: object of type 'generator' has no len() (in ")
    assert "drift.server_app:" in ended["reason"]


async def test_a_process_that_dies_again_and_again_is_given_up(garden: Garden) -> None:
    dying = SAME.replace("nodes, total =", "import os; os.kill(os.getpid(), 9); nodes, total =")
    stream = await serve(garden, dying, max_attempts=2)
    ended = await garden.outcome(stream)
    assert ended["code"] == "server-app-crashed"
    assert "ended 2 times without a new exchange, the last: killed by signal 9" in ended["reason"]


async def test_nodes_that_do_not_answer_are_errors_at_the_deadline(garden: Garden) -> None:
    stream = await serve(garden, SAME, deadline_seconds=3)
    ended = await garden.outcome(stream)
    assert ended["type"] == "aggregate.completed", ended
    pulled = [data for name, data in await garden.events(stream) if name == "message.pulled"]
    assert [[one["error"] for one in data["replies"]] for data in pulled] == [[4, 4]] * 3


async def test_a_main_may_take_longer_than_an_exchange_before_it_asks(garden: Garden) -> None:
    slow = SAME.replace("nodes, total =", "import time; time.sleep(4); nodes, total =")
    stream = await serve(garden, slow, deadline_seconds=1)
    await pushed(garden, stream, 1)


async def test_a_main_that_asks_for_nothing_is_given_up(
    garden: Garden, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "LEAST_SILENCE", 1.0)
    hanging = SAME.replace("nodes, total =", "import time; time.sleep(600); nodes, total =")
    ended = await garden.outcome(await serve(garden, hanging, deadline_seconds=1))
    assert (ended["type"], ended["code"]) == ("aggregate.failed", "app-failed")
    assert ended["reason"] == "main has not ended and has asked for nothing for 1 s"


async def test_an_operator_may_run_no_pushed_app(garden: Garden) -> None:
    await garden.stop()
    garden.settings = garden.settings.model_copy(update={"runs_pushed_apps": False})
    await garden.start()
    raw = bundle()
    garden.put(raw, key=f"apps/acme/{digest(raw)}.fab")
    app = f"fab:{digest(raw)}"
    await garden.create(code_hash=digest(raw), app=app, server_app="whole", model_ref=None)
    ended = await garden.outcome(garden.stream(0, exchange="initialize"))
    assert (ended["type"], ended["code"]) == ("aggregate.failed", "app-not-run")
