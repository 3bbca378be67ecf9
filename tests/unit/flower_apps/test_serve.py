"""The process of a ServerApp: its Grid, its clock and randomness, how it ends."""

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from flowerbed.aggregator.server_process import running
from flowerbed.flower_apps.contents import decoded, encoded
from flowerbed.flower_apps.differences import differences
from flowerbed.flower_apps.grid_pipe import Answer, Differs, Done, Failed, Hello, Pull, Push, Reply

NODES = (11, 22)

MAIN = """
import datetime, os, random, secrets, time, uuid
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()


@app.main()
def main(grid, context):
    time.sleep(0.01)
    seen = [
        time.time(), time.time_ns() / 1e9, datetime.datetime.now().timestamp(), uuid.uuid4().hex,
        random.random(), random.Random().random(), secrets.token_hex(4), os.urandom(4).hex(),
        float(np.random.rand()), float(np.random.default_rng().random()), str(set("abcdef")),
        context.run_config["lr"], str(isinstance(datetime.datetime.now(), datetime.datetime)),
    ]
    config = ConfigRecord({"seen": [str(one) for one in seen], "local-epochs": 2})
    content = RecordDict({"model": ArrayRecord([np.arange(3.0)]), "config": config})
    nodes = list(grid.get_node_ids())
    ids = grid.push_messages([Message(content, node, "train", group_id="g") for node in nodes])
    found = []
    while len(found) < len(nodes):
        found += grid.pull_messages(ids)
    print("answers", [m.content["n"]["n"] if m.has_content() else m.error.code for m in found])
    open("kept.txt", "w").write("kept")
"""


def hello(folder: Path, main: str) -> Hello:
    app = folder / "app"
    app.mkdir(exist_ok=True)
    (app / "served.py").write_text(main)
    for name in ("inbox", "outbox", "work"):
        (folder / name).mkdir(exist_ok=True)
    return Hello(
        folder=str(app), server_app="served:app", run_config={"lr": 0.5}, run_id=5,
        node_ids=NODES, seed=7, started_at=1.7e9, is_replayed=False, inbox=str(folder / "inbox"),
        outbox=str(folder / "outbox"), work=str(folder / "work"),
    )  # fmt: skip


class Nodes:
    """Answers what `main` asks: the first pull is in vain, the second node has an error."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pushed: list[Push] = []
        self.lines: list[str] = []
        self.n_pulls = 0

    async def serve(self, hello: Hello) -> Done | Failed | None:
        async with running(hello, self.lines.append) as process:
            async for call in process.calls():
                if isinstance(call, Done | Failed):
                    return call
                process.answer(self.answer(call))
        return None

    def answer(self, call: Push | Pull) -> Answer | Differs:
        if isinstance(call, Push):
            self.pushed.append(call)
            ids = tuple(f"m{sent.node_id}" for sent in call.messages)
            return Answer(call=call.call, at=1.8e9, ids=ids)
        self.n_pulls += 1
        if self.n_pulls == 1:
            return Answer(call=call.call, at=call.at)
        raw = encoded(RecordDict({"n": MetricRecord({"n": 4})}))
        sha256 = hashlib.sha256(raw).hexdigest()
        (self.folder / "inbox" / sha256).write_bytes(raw)
        good = Reply(message_id="m11", node_id=11, sha256=sha256)
        bad = Reply(message_id="m22", node_id=22, error=5, reason="client-left")
        return Answer(call=call.call, at=1.9e9, replies=(good, bad))

    def content(self) -> RecordDict:
        (sha256,) = {sent.sha256 for sent in self.pushed[0].messages}
        return decoded((self.folder / "outbox" / sha256).read_bytes())


def served(folder: Path, main: str = MAIN) -> tuple[Nodes, Done | Failed | None]:
    nodes = Nodes(folder)
    return nodes, asyncio.run(nodes.serve(hello(folder, main)))


def test_main_run_again_sends_the_same_bytes(tmp_path: Path) -> None:
    runs = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        nodes, ended = served(tmp_path / name)
        assert isinstance(ended, Done), (ended, nodes.lines)
        assert "answers [4, 5]" in nodes.lines
        assert (tmp_path / name / "work" / "kept.txt").read_text() == "kept"
        runs.append((nodes.pushed[0].messages, ended.sha256, ended.arrays_from))
    assert runs[0] == runs[1]
    assert runs[0][2] == "last-sent"


def test_a_push_says_what_is_sent_and_what_it_asks_of_the_data(tmp_path: Path) -> None:
    nodes, _ = served(tmp_path)
    first, second = nodes.pushed[0].messages
    assert (first.node_id, second.node_id) == NODES
    assert (first.message_type, first.group_id, first.config) == ("train", "g", {"local-epochs": 2})
    assert list(nodes.content()) == ["model", "config"]
    seen = nodes.content()["config"]["seen"]
    assert isinstance(seen, list)
    assert [str(one)[:6] for one in seen[:3]] == ["170000"] * 3
    assert seen[-2:] == ["0.5", "True"]


def test_an_app_may_exit_when_it_has_done(tmp_path: Path) -> None:
    _, ended = served(tmp_path, MAIN.replace("time.sleep(0.01)", "raise SystemExit(0)"))
    assert isinstance(ended, Done) and ended.arrays_from == "none"


@pytest.mark.parametrize(
    ("main", "told"),
    [
        (MAIN.replace("time.sleep(0.01)", "raise ValueError('too bad')"), "ValueError: too bad"),
        (
            MAIN.replace("time.sleep(0.01)", "raise SystemExit(3)"),
            "SystemExit: 3 (in flwr.",
        ),
        ("app = 3", "TypeError: served:app is int, not a ServerApp"),
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named"),
    ],
)
def test_what_goes_wrong_is_told_with_modules_and_no_path(
    tmp_path: Path, main: str, told: str
) -> None:
    _, ended = served(tmp_path, main)
    assert isinstance(ended, Failed) and ended.code == "app-failed"
    assert told in ended.reason
    assert str(tmp_path) not in ended.reason


def test_an_app_that_sends_something_else_is_told_where(tmp_path: Path) -> None:
    was = encoded(RecordDict({"config": ConfigRecord({"x": 1})}))
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "was").write_bytes(was)

    class Strict(Nodes):
        def answer(self, call: Push | Pull) -> Answer | Differs:
            assert isinstance(call, Push)
            now = call.messages[0].sha256
            return Differs(call=call.call, text="exchange 1", was="was", now=now)

    nodes = Strict(tmp_path)
    ended = asyncio.run(nodes.serve(hello(tmp_path, MAIN)))
    assert isinstance(ended, Failed) and ended.code == "not-deterministic"
    assert "exchange 1: records were config, are model, config" in ended.reason


def arrays(*values: Sequence[float]) -> RecordDict:
    import numpy as np

    return RecordDict({"model": ArrayRecord([np.array(one) for one in values])})


def test_differences_are_told_by_record_and_key() -> None:
    assert differences(arrays([1.0, 2.0]), arrays([1.0, 2.5])) == (
        "record 'model', key '0': 1 of 2 elements differ, by up to 0.5"
    )
    was, now = (RecordDict({"c": ConfigRecord({"at": at})}) for at in (1.7e9, 1.8e9))
    assert differences(was, now) == (
        "record 'c', key 'at': was 1700000000.0, is 1800000000.0 (it looks like a time)"
    )
