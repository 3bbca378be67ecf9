"""A SuperNode is kept running, and nothing of it outlives it: here with programs of the test's."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from flowerbed.runner import supernode
from flowerbed.runner.errors import BadInput
from flowerbed.runner.node_files import NodeFiles
from flowerbed.runner.supernode import MARK, SuperNode, end_marked, flower_programs

PROGRAM = f"""#!{sys.executable} -IS
import os, sys, time
kind = os.path.basename(sys.argv[0])
if os.fork() == 0:  # leaves its parent and its group, as a ClientApp might
    os.setsid()
    if os.fork():
        os._exit(0)
    open(os.environ["HERE"] + "/escaped", "a").write(str(os.getpid()) + "\\n")
    time.sleep(600)
line = " ".join((str(os.getpid()), *sys.argv))
open(os.environ["HERE"] + "/" + kind, "a").write(line + "\\n")
time.sleep(600)
"""


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SuperNode:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("flower-supernode", "flower-superexec", "flwr-clientapp"):
        (programs / name).write_text(PROGRAM.replace('os.environ["HERE"]', repr(str(tmp_path))))
        (programs / name).chmod(0o755)
    monkeypatch.setattr(supernode, "FIRST_PAUSE", 0.05)
    monkeypatch.setenv("SECRET_OF_THE_AGENT", "x")
    files = NodeFiles(tmp_path / "node")
    files.public_key()
    return SuperNode(files, programs, 1234)


def started(node: SuperNode, kind: str) -> list[tuple[int, str]]:
    path = node.files.folder.parent / kind
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(line.split()[0]), line) for line in lines]


async def until(look: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


async def test_both_programs_are_started_again_when_one_is_killed(node: SuperNode) -> None:
    running = asyncio.create_task(node.run())
    kinds = ("flower-supernode", "flower-superexec")
    await until(lambda: all(started(node, kind) for kind in kinds))
    await until(lambda: len(started(node, "escaped")) == 2)
    first = [started(node, kind)[0][0] for kind in kinds]
    os.kill(first[0], signal.SIGKILL)
    await until(lambda: all(len(started(node, kind)) == 2 for kind in kinds))
    gone = [*first, *(pid for pid, _ in started(node, "escaped")[:2])]
    assert not [pid for pid in gone if psutil.pid_exists(pid) and not is_zombie(pid)]
    assert node.restarts == 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert supernode._marked(node.files.folder) == [], "who left the group is ended too"


def sleeper(mark: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["sleep", "600"], env={**os.environ, MARK: mark})


def is_zombie(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def test_they_are_told_where_the_tunnel_is_and_no_secret_in_their_arguments(
    node: SuperNode,
) -> None:
    running = asyncio.create_task(node.run())
    await until(
        lambda: bool(started(node, "flower-superexec") and started(node, "flower-supernode"))
    )
    (_, line), (_, other) = (
        started(node, "flower-supernode")[0],
        started(node, "flower-superexec")[0],
    )
    secret = node.files.secret.read_text()
    environment = psutil.Process(started(node, "flower-supernode")[0][0]).environ()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert "--superlink localhost:1234" in line
    assert "--isolation process" in line and "--host 127.0.0.1" in line
    assert f"--parent-pid {os.getpid()}" in other
    assert secret not in line + other
    assert "SECRET_OF_THE_AGENT" not in environment
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"


async def test_what_an_agent_that_was_killed_has_left_is_ended_first(node: SuperNode) -> None:
    left, other = sleeper(str(node.files.folder)), sleeper("/another/lease")
    running = asyncio.create_task(node.run())
    try:
        await until(lambda: bool(started(node, "flower-supernode")))
        assert not psutil.pid_exists(left.pid)
        assert other.poll() is None
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        other.kill()
        other.wait()
    assert end_marked(node.files.folder) == []


def test_what_is_started_while_it_looks_is_ended_too(
    node: SuperNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark, look, late = str(node.files.folder), supernode._mark_of, list[subprocess.Popen[bytes]]()
    first = sleeper(mark)

    def forks(process: psutil.Process) -> str | None:
        if process.pid == first.pid and not late:
            late.append(sleeper(mark))
        return look(process)

    monkeypatch.setattr(supernode, "_mark_of", forks)
    try:
        assert end_marked(node.files.folder) == [first.pid, late[0].pid]
        assert not psutil.pid_exists(first.pid) and not psutil.pid_exists(late[0].pid)
    finally:
        for one in (first, *late):
            one.kill()
            one.wait()


async def test_a_supernode_dies_with_its_agent(node: SuperNode, tmp_path: Path) -> None:
    code = (
        "import asyncio, sys; from pathlib import Path;"
        "from flowerbed.runner.node_files import NodeFiles;"
        "from flowerbed.runner.supernode import SuperNode;"
        "asyncio.run(SuperNode(NodeFiles(Path(sys.argv[1])), Path(sys.argv[2]), 1).run())"
    )
    agent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(node.files.folder), str(node.programs)
    )
    try:
        await until(lambda: bool(started(node, "flower-supernode")))
        agent.kill()
        await agent.wait()
        pid = started(node, "flower-supernode")[0][0]
        await until(lambda: not psutil.pid_exists(pid) or is_zombie(pid))
    finally:
        end_marked(node.files.folder)


def test_the_node_keeps_its_key_for_its_owner_alone(tmp_path: Path) -> None:
    files = NodeFiles(tmp_path / "supernodes" / "lease-1")
    key = files.public_key()
    assert key == NodeFiles(files.folder).public_key()
    assert key.startswith("ecdsa-sha2-nistp384 ")
    assert files.key.stat().st_mode & 0o777 == 0o600
    files.write_config({"data-path": '/srv/a "b"\\c', "partition-id": 2, "on": True})
    assert files.config.read_text().splitlines() == [
        '"data-path" = "/srv/a \\"b\\"\\\\c"', '"partition-id" = 2', '"on" = true',
    ]  # fmt: skip


def test_an_environment_without_flower_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="flower-supernode is not installed in"):
        flower_programs(str(tmp_path / "bin" / "python"))
    assert (flower_programs(None) / "flower-supernode").exists()
