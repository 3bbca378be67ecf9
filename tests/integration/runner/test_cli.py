"""`flowerbed client` as a person types it, with the agent as a real background process."""

import fcntl
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from click.testing import Result
from typer.testing import CliRunner

from flowerbed.cli.client import app
from flowerbed.runner import control
from flowerbed.runner.__main__ import main
from flowerbed.runner.control import running_agent, stop_agent
from flowerbed.runner.errors import BadInput
from flowerbed.runner.keeping import running_keeper
from flowerbed.runner.launch import AlreadyRunning, run_agent
from flowerbed.runner.settings import AgentSettings
from flowerbed.runner.state import StateDir, write_json
from flowerbed.runner.status import LeaseStatus, Status, StatusBoard
from tests.integration.runner.control_plane import CLIENT, ControlPlane, wait_for


@pytest.fixture
def client(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> Iterator["Client"]:
    monkeypatch.setenv("FLOWERBED_CLIENT_DIR", str(state.root))
    yield Client()
    stop_agent(state)


class Client:
    def __call__(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, arguments)


def test_client_starts_once_tells_its_status_and_stops(
    client: Client, control_plane: ControlPlane, folder: Path, state: StateDir, tmp_path: Path
) -> None:
    invite = tmp_path / "invite"
    invite.write_text(control_plane.invite() + "\n")
    started = client(
        "start", "--dataset", f"local:{folder}", "--invite", f"@{invite}", "--task", "heart",
        "--server", control_plane.enrol_door.url, "--output", "json",
    )  # fmt: skip
    assert started.exit_code == 0, started.output
    document = json.loads(started.stdout)
    assert (document["running"], document["phase"]) == (True, "polling")
    assert (document["client_id"], document["dataset"][:6]) == (CLIENT, "heart-")
    assert control_plane.polls >= 1

    again = client("start", "--dataset", f"local:{folder}", "--task", "heart", "-o", "json")
    assert (again.exit_code, json.loads(again.stdout)["pid"]) == (0, document["pid"])
    other = client("start", "--dataset", f"local:{folder.parent}")
    assert (other.exit_code, "stop it first" in other.stderr) == (2, True)

    agent = psutil.Process(document["pid"])
    assert [c for c in agent.net_connections() if c.status == psutil.CONN_LISTEN] == []
    assert not any(file.path.endswith("libtorch_cpu.so") for file in agent.memory_maps())
    text = client("status").stdout
    assert f"client       {CLIENT} (tenant default)" in text
    assert f"agent        polling, pid {agent.pid}" in text
    assert "polls https://127.0.0.1" in client("log").stdout

    assert client("stop", "--release").stdout == "stopped\n"
    assert running_agent(state) is None
    assert json.loads(client("status", "--output", "json").stdout)["running"] is False
    assert json.loads(client("stop", "--output", "json").stdout)["was_running"] is False


def test_a_site_that_keeps_its_log_lines_keeps_them_at_later_starts(
    client: Client, enrolled: StateDir, folder: Path
) -> None:
    for options, expected in (([], True), (["--no-logs"], False), ([], False), (["--logs"], True)):
        started = client("start", "--dataset", f"local:{folder}", "--task", "heart", *options)
        assert (started.exit_code, AgentSettings.load(enrolled).logs) == (0, expected)
        client("stop")


def test_later_starts_need_no_dataset_and_keep_what_is_not_given(
    client: Client, enrolled: StateDir, folder: Path
) -> None:
    enrolled.settings.unlink()
    first = client("start")
    assert (first.exit_code, "--dataset local:/path" in first.stderr) == (2, True)
    assert client("start", "--dataset", f"local:{folder}", "--task", "heart").exit_code == 0
    chosen = AgentSettings.load(enrolled)
    assert client("start").exit_code == 0, "as it was: it runs already"
    assert client("start", "--no-logs").exit_code == 2, "another choice, while it runs"
    client("stop")
    assert client("start", "--no-logs").exit_code == 0
    assert AgentSettings.load(enrolled) == replace(chosen, logs=False)


def test_agent_that_is_killed_is_started_again_and_so_is_its_keeper(
    client: Client, control_plane: ControlPlane, enrolled: StateDir, folder: Path
) -> None:
    assert client("start", "--dataset", f"local:{folder}").exit_code == 0
    agent, keeper = running_agent(enrolled), running_keeper(enrolled)
    assert agent is not None
    assert keeper is not None
    assert keeper.memory_info().rss < 12 << 20
    assert f"keeper       pid {keeper.pid}\n" in client("status").stdout

    keeper.kill()
    other = wait_for(
        lambda: (found := running_keeper(enrolled)) and found != keeper and found, "another keeper"
    )
    assert running_agent(enrolled) == agent, "the agent goes on meanwhile"
    agent.kill()
    again = wait_for(
        lambda: (found := running_agent(enrolled)) and found != agent and found, "another agent"
    )
    assert running_keeper(enrolled) == other
    again.kill()
    polls = control_plane.polls
    wait_for(lambda: control_plane.polls > polls, "the next agent's poll")
    words = (
        f"keeper       pid {other.pid}, has started it again 2 times: it was killed by signal 9, "
    )
    assert words in client("status").stdout
    status = json.loads(client("status", "-o", "json").stdout)
    assert status["keeper"] == {"pid": other.pid, "restarts": 2}

    assert client("stop").stdout == "stopped\n"
    assert (running_agent(enrolled), running_keeper(enrolled)) == (None, None)


def test_keeper_gives_an_agent_up_that_a_person_must_help(
    client: Client, control_plane: ControlPlane, enrolled: StateDir, folder: Path
) -> None:
    assert client("start", "--dataset", f"local:{folder}").exit_code == 0
    agent = running_agent(enrolled)
    assert agent is not None
    enrolled.identity.unlink()
    agent.kill()
    wait_for(lambda: running_keeper(enrolled) is None, "the keeper's end")
    assert "not running" in client("status").stdout
    assert "not enrolled: start it with --invite KEY" in client("log").stdout


def test_client_runs_in_the_foreground(
    client: Client, control_plane: ControlPlane, folder: Path, state: StateDir
) -> None:
    command = "from flowerbed.cli.client import app; app()"
    arguments = ["start", "--foreground", "--dataset", f"local:{folder}", "--invite", "-"]
    process = subprocess.Popen(
        [sys.executable, "-c", command, *arguments, "--state-dir", str(state.root)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stderr is not None
    print(control_plane.invite(), file=process.stdin, flush=True)
    try:
        assert "client site-a polls" in process.stderr.readline()
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.communicate()


def test_mistakes_are_answered_with_one_line(
    client: Client, control_plane: ControlPlane, folder: Path, tmp_path: Path
) -> None:
    dataset = f"local:{folder}"
    (tmp_path / "empty").mkdir()
    wrong_ca = control_plane.invite(ca_sha256="0" * 64)
    away = control_plane.invite(enrol_url="https://127.0.0.1:9")
    mistakes = [
        (2, "not enrolled", ["--dataset", dataset]),
        (2, "an invite key begins with", ["--dataset", dataset, "--invite", "abc"]),
        (2, "the invite names", ["--dataset", dataset, "--invite", wrong_ca]),
        (2, "cannot be read", ["--dataset", dataset, "--invite", "@/nowhere"]),
        (2, "is not a folder", ["--dataset", "local:/nowhere"]),
        (2, "holds no file", ["--dataset", f"local:{tmp_path / 'empty'}"]),
        (2, "local:/path/to/folder", ["--dataset", "/data"]),
        (2, "task 'Heart'", ["--dataset", dataset, "--task", "Heart"]),
        (3, "did not answer", ["--dataset", dataset, "--invite", away]),
    ]
    for code, words, arguments in mistakes:
        result = client("start", *arguments)
        assert (result.exit_code, words in result.stderr) == (code, True), (
            arguments,
            result.output,
        )
        assert result.stderr.count("\n") == 1
        assert result.stderr.startswith("error: ")
    assert client("status").exit_code == 2
    assert client("log").exit_code == 2


def test_agent_starts_while_the_door_is_away_and_finds_it_later(
    client: Client,
    control_plane: ControlPlane,
    enrolled: StateDir,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(control, "REACH_SECONDS", 0.1)
    control_plane.client_door.stop()
    started = client("start", "--dataset", f"local:{folder}")
    assert started.exit_code == 3
    assert "error: the agent runs and keeps trying: https://127.0.0.1" in started.stderr
    control_plane.client_door.start()
    wait_for(lambda: "polling" in client("status").stdout, "a poll")


def test_what_is_allowed_is_read_as_origins(client: Client, state: StateDir, folder: Path) -> None:
    start = ("start", "--dataset", f"local:{folder}")
    refused = client(*start, "--otlp-allow", "https://a.example", "--otlp-allow", "b.example/v1")
    assert refused.exit_code == 2
    assert "--otlp-allow: 'b.example/v1' is no origin" in refused.stderr
    assert not state.settings.exists()


def test_allowed_origins_are_kept_for_the_agent(
    client: Client, enrolled: StateDir, folder: Path
) -> None:
    allowed = ("--otlp-allow", "https://a.example", "--otlp-allow", "http://b.example:4318/")
    start = ("start", "--dataset", f"local:{folder}", *allowed)
    assert client(*start).exit_code == 0
    kept = AgentSettings.load(enrolled).otlp_allowed
    assert kept == ("https://a.example:443", "http://b.example:4318")
    assert client(*start).exit_code == 0, "asked again for the same, it runs already"


def test_agent_that_cannot_run_says_why(client: Client, enrolled: StateDir, folder: Path) -> None:
    enrolled.settings.write_text('{"dataset": "nowhere"}')
    with pytest.raises(BadInput, match="local:/path/to/folder, not 'nowhere'"):
        control.start_agent(enrolled)
    assert main(["--state-dir", str(enrolled.root)]) == 2
    with enrolled.lock.open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(AlreadyRunning, match="an agent runs already"):
            run_agent(enrolled)


def test_status_tells_what_the_client_does(client: Client, state: StateDir) -> None:
    state.make()
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    own = psutil.Process(sleeper.pid)
    write_json(state.lock, {"pid": own.pid, "started_at": own.create_time()})
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    status = Status(
        pid=own.pid, started_at=own.create_time(), client_id=CLIENT, tenant="default",
        server="https://door", certificate_expires_at=now, phase="polling", dataset="heart-1",
        finished={"train": 2, "evaluate": 1},
    )  # fmt: skip
    board = StatusBoard(state, status)
    board.lease(LeaseStatus(lease_id="l", federation_id="fed-1", epoch=2, app="builtin:hospital"))
    board.work("fed-1.1.1.train.site-a", "reported", 0.5)
    board.error("something")
    text = client("status").stdout
    assert "lease        fed-1, epoch 2, builtin:hospital: waiting for work" in text
    assert "finished     evaluate 1, train 2" in text
    assert "last work    fed-1.1.1.train.site-a: reported, " in text
    assert "last error   something, " in text
    assert client("stop").stdout == "stopped\n"
    sleeper.communicate()
