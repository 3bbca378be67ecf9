"""The small parts: scrubbing, waiting, renewing, what a worker inherits, what status says."""

import getpass
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flowerbed.runner import patience
from flowerbed.runner.control import log_lines, running_agent, stop_agent
from flowerbed.runner.door import retry_after
from flowerbed.runner.errors import BadInput, NotReachable
from flowerbed.runner.patience import patiently, pause
from flowerbed.runner.pipe import Hello, Result
from flowerbed.runner.renewal import renewal_at
from flowerbed.runner.scrub import LONGEST, scrub
from flowerbed.runner.settings import AgentSettings
from flowerbed.runner.state import (
    BASES_KEPT_SECONDS,
    StateDir,
    default_state_dir,
    read_json,
    write_json,
)
from flowerbed.runner.status import read_status
from flowerbed.runner.warm import environment


@pytest.mark.parametrize(
    "text",
    [
        "FileNotFoundError: '/srv/st elsewhere/ward 7/rows.csv'",
        "cannot open /srv/data/rows.csv: gone",
        "in ../data/rows.csv or ~/rows.csv or C:\\data\\rows.csv",
        f"at {Path.home()}/x",
        "rows.csv holds no record; see ward 7.csv",
        f"host {socket.gethostname()}",
        "opened file:///srv/data/rows.csv and s3://srv-data/rows",
        "from \\\\nas\\srv\\data\\ward.csv",
        "reading ward/rows_of_data.csv",
        "written by srv.data@elsewhere",
        "data.rows+srv@mail.example",
    ],
)
def test_text_that_leaves_the_site_names_nothing_of_it(text: str) -> None:
    scrubbed = scrub(text, Path("/srv/data"), {"rows.csv", "ward 7.csv", "elsewhere"})
    for secret in ("srv", "data", "rows", "ward", "elsewhere", str(Path.home())):
        assert secret not in scrubbed
    if (host := socket.gethostname()) != "localhost":
        assert host not in scrubbed


def test_scrubbing_keeps_what_helps() -> None:
    text = "hospital.task:57 in load_rows\nValueError: chol is 1/2, 3 features of 13"
    text += ", 12.5 rows/s at 3/10, loss/acc 0.5"
    assert scrub(text, Path("/srv/data"), {"rows.csv"}) == text
    assert len(scrub("x " * 9999, Path("/srv/data"), ())) <= LONGEST + 10
    assert getpass.getuser() == "root" or getpass.getuser() not in scrub(
        f"user {getpass.getuser()}", Path("/d"), ()
    )


async def test_waiting_goes_on_until_somebody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_PAUSE", 0.001)
    answers: Iterator[NotReachable | str] = iter(
        [NotReachable("away"), NotReachable("busy", retry_after=0.01), "here"]
    )
    seen: list[str] = []

    async def call() -> str:
        answer = next(answers)
        if isinstance(answer, NotReachable):
            raise answer
        return answer

    assert await patiently(call, on_wait=lambda error: seen.append(str(error))) == "here"
    assert seen == ["away", "busy"]


async def test_waiting_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    async def call() -> None:
        raise NotReachable("away", retry_after=3600)

    with pytest.raises(NotReachable):
        await patiently(call, until=time.time() + 0.5)


def test_pauses_grow_and_are_never_equal_for_all() -> None:
    assert pause(0) <= patience.FIRST_PAUSE
    assert patience.SHORT_PAUSE / 2 <= pause(20) <= patience.SHORT_PAUSE
    assert patience.LONG_PAUSE / 2 <= pause(10_000) <= patience.LONG_PAUSE
    assert len({pause(20) for _ in range(10)}) > 1


def test_retry_after_is_seconds_or_a_date() -> None:
    assert (retry_after(None), retry_after("7"), retry_after("-1")) == (None, 7.0, 0.0)
    assert retry_after("Thu, 01 Jan 1970 00:00:00 GMT") == 0.0
    assert retry_after("soon") is None


def test_certificate_is_renewed_at_two_thirds_of_its_life() -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    end = noon + timedelta(hours=24)
    assert renewal_at(noon, end, 0.0) == noon + timedelta(hours=16)
    assert renewal_at(noon, end, 1.0) < noon + timedelta(hours=18)


def test_worker_inherits_nothing_that_could_be_a_secret() -> None:
    environ = {"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "x", "FLOWERBED_INVITE": "x", "LC_ALL": "C"}
    inherited = environment(environ)
    assert {"PATH", "LC_ALL", "OMP_NUM_THREADS"} <= inherited.keys()
    assert "x" not in inherited.values()


def test_lines_of_the_pipe_hold_what_json_does_not() -> None:
    result = Result(sha256=None, metrics={"loss": float("nan")}, seconds=0.5)
    line = result.line()
    assert line.count(b"\n") == 1
    assert str(Result.model_validate_json(line).metrics["loss"]) == "nan"
    assert Hello(app="a", data_path="/d", run_id=2**63 - 1, node_id=1).line().endswith(b"\n")


def test_state_directory_is_the_users_own(tmp_path: Path) -> None:
    assert default_state_dir({"FLOWERBED_CLIENT_DIR": "/x"}) == Path("/x")
    assert default_state_dir({"XDG_DATA_HOME": "/d"}) == Path("/d/flowerbed/client")
    assert default_state_dir({}) == Path.home() / ".local/share/flowerbed/client"
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot hold a client"):
        StateDir.at(tmp_path / "file" / "state").make()


def test_base_checkpoints_outlive_an_agent_but_not_for_ever(tmp_path: Path) -> None:
    state = StateDir.at(tmp_path)
    for name, age in (("new", 60), ("old", BASES_KEPT_SECONDS + 60)):
        base = state.bases("lease") / f"{name}.safetensors"
        base.parent.mkdir(parents=True, exist_ok=True)
        base.touch()
        os.utime(base, (time.time() - age,) * 2)
    state.clear_leftovers()
    assert [base.stem for base in state.bases("lease").iterdir()] == ["new"]


def test_damaged_or_missing_documents_are_none(tmp_path: Path) -> None:
    assert read_json(tmp_path / "none.json") is None
    (tmp_path / "damaged.json").write_text('{"a":')
    assert read_json(tmp_path / "damaged.json") is None
    write_json(tmp_path / "whole.json", {"a": 1})
    assert read_json(tmp_path / "whole.json") == {"a": 1}
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_process_with_a_number_used_again_is_not_the_agent(tmp_path: Path) -> None:
    state = StateDir.at(tmp_path)
    assert running_agent(state) is None
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        write_json(state.lock, {"pid": sleeper.pid, "started_at": 1.0})
        assert running_agent(state) is None
        assert stop_agent(state) is False
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.communicate()


def test_log_is_shown_from_its_end(tmp_path: Path) -> None:
    state = StateDir.at(tmp_path)
    with pytest.raises(BadInput, match="no log"):
        list(log_lines(state, 5))
    state.log.write_text("one\ntwo\nthree\n")
    assert list(log_lines(state, 2)) == ["two", "three"]
    following = log_lines(state, 1, follow=True)
    assert next(following) == "three"
    with state.log.open("a") as log:
        log.write("four\n")
    assert next(following) == "four"


def test_settings_are_kept_for_the_agent(tmp_path: Path) -> None:
    state = StateDir.at(tmp_path)
    with pytest.raises(BadInput, match="begin with `flowerbed client start`"):
        AgentSettings.load(state)
    settings = AgentSettings(dataset="local:/d", task="heart")
    settings.save(state)
    assert AgentSettings.load(state) == settings
    assert read_status(state) is None


def test_agent_loads_neither_torch_nor_flwr() -> None:
    code = (
        "import sys, flowerbed.runner.launch; "
        "assert not {'torch', 'flwr', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
