"""up, down, up again; and what is left when something was killed in between."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import pytest

from flowerbed.embedded import probes
from flowerbed.embedded.control import down, up
from flowerbed.embedded.errors import ComponentFailed
from flowerbed.embedded.identity import ProcessId
from flowerbed.embedded.ports import read_ports
from flowerbed.embedded.record import StackRecord, write_record
from flowerbed.embedded.stack import Stack
from tests.integration.embedded.observing import (
    component,
    eventually,
    process,
    processes,
    record,
    status,
)

SERVERS = ("postgres", "nats", "s3", "caddy")
SERVICE = "artifact"


def query(stack: Stack, statement: str, service: str = "lease", role: str = "owner") -> object:
    async def ask() -> object:
        connection = await asyncpg.connect(stack.postgres_dsn(service, role), timeout=5)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(ask())


def put(stack: Stack, path: str) -> int:
    access = stack.s3
    port = stack.port("s3")
    return probes.s3_call("PUT", port, path, access.access_key, access.secret_key)[0]


def get(stack: Stack, path: str) -> int:
    access = stack.s3
    port = stack.port("s3")
    return probes.s3_call("GET", port, path, access.access_key, access.secret_key)[0]


def test_up_twice_is_one_stack(servers: Stack) -> None:
    before = record(servers)

    up(servers.state_dir, services=())

    assert record(servers) == before


def test_parts_of_the_s3_server_find_each_other(servers: Stack) -> None:
    """Its worker, which clears away what was deleted, is registered with its admin server."""
    log = servers.layout.log("s3")
    eventually(lambda: "Worker registered successfully" in log.read_text())
    assert "Reconnection attempt" not in log.read_text()


def test_second_supervisor_leaves_the_first_alone(servers: Stack) -> None:
    before = record(servers)
    command = [sys.executable, "-m", "flowerbed.embedded.supervisor"]

    subprocess.run([*command, "--state-dir", servers.state_dir, "--services", ""], check=True)

    assert record(servers) == before


@pytest.mark.parametrize("name", [*SERVERS, SERVICE])
def test_killed_process_comes_back(servers: Stack, name: str) -> None:
    before = component(servers, name)
    assert before.process is not None

    before.process.signal(signal.SIGKILL)

    eventually(lambda: component(servers, name).restarts > before.restarts)
    eventually(lambda: (found := status(servers, name)) is not None and found.ready)
    assert process(servers, name) != before.process


def test_down_leaves_data_and_no_process(state_dir: Path) -> None:
    """And the next `up` finds its way, though a port and a pid went to others meanwhile."""
    stack = up(state_dir, services=())
    query(stack, "CREATE TABLE kept AS SELECT 42 AS answer")
    assert put(stack, "/flowerbed/kept") == 200
    token, before = stack.api_token, processes(stack)
    ports = read_ports(stack.layout)
    assert len(before) > len(SERVERS)

    assert down(state_dir)

    assert not [item for item in before if item.is_alive()]
    assert not down(state_dir)
    lock, data = stack.layout.postgres / "postmaster.pid", os.path.realpath(stack.layout.postgres)
    lock.write_text(f"{os.getppid()}\n{data}\n1\n{ports['postgres']}\n\n127.0.0.1\n")
    with socket.create_server(("127.0.0.1", ports["nats"])):
        up(state_dir, services=())

        assert (found := status(stack, "nats")) is not None
        assert found.ready
    assert query(stack, "SELECT answer FROM kept") == 42
    assert get(stack, "/flowerbed/kept") == 200
    assert Stack(state_dir).api_token == token
    now = read_ports(stack.layout)
    assert {name for name in ports if now[name] != ports[name]} == {"nats"}


def all_processes(stack: Stack) -> dict[str, ProcessId | None]:
    return {item.name: item.process for item in record(stack).components}


def test_killed_supervisor_is_followed_by_one_that_goes_on_with_its_processes(
    servers: Stack,
) -> None:
    eventually(lambda: all(item.state == "ready" for item in record(servers).components))
    before, running = record(servers), all_processes(servers)

    before.supervisor.signal(signal.SIGKILL)
    eventually(lambda: record(servers).supervisor != before.supervisor)
    eventually(lambda: record(servers).is_kept() and len(all_processes(servers)) == len(running))

    assert all_processes(servers) == running
    process(servers, "postgres").signal(signal.SIGKILL)  # no child of the new one: it is watched
    eventually(lambda: all_processes(servers)["postgres"] not in (None, running["postgres"]))
    eventually(lambda: component(servers, "postgres").state == "ready")
    eventually(lambda: (found := status(servers, SERVICE)) is not None and found.ready)


def test_killed_keeper_is_replaced(servers: Stack) -> None:
    eventually(lambda: record(servers).is_kept())
    before = record(servers)
    assert before.keeper is not None

    before.keeper.signal(signal.SIGKILL)
    eventually(lambda: record(servers).is_kept() and record(servers).keeper != before.keeper)

    assert record(servers).supervisor == before.supervisor
    assert all_processes(servers) == {item.name: item.process for item in before.components}


def kill_supervisor_and_keeper(stack: Stack) -> None:
    found = record(stack)
    assert found.keeper is not None
    found.supervisor.signal(signal.SIGSTOP)  # so that it starts no other keeper
    found.keeper.signal(signal.SIGKILL)
    assert found.keeper.wait(5)
    found.supervisor.signal(signal.SIGKILL)
    assert found.supervisor.wait(5)


def test_stack_that_nobody_supervises_is_cleaned_up_after(state_dir: Path) -> None:
    stack = up(state_dir, services=())
    query(stack, "CREATE TABLE kept AS SELECT 42 AS answer")
    first = processes(stack)
    kill_supervisor_and_keeper(stack)

    up(state_dir, services=())  # without a `down` in between

    assert not [item for item in first if item.is_alive()]
    second = processes(stack)
    kill_supervisor_and_keeper(stack)

    assert down(state_dir)

    assert not [item for item in second if item.is_alive()]
    up(state_dir, services=())
    assert query(stack, "SELECT answer FROM kept") == 42


def test_down_never_ends_a_stranger(state_dir: Path, servers: Stack) -> None:
    """The record says this pid, but another process has it by now."""
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        now = ProcessId.of(stranger.pid)
        assert now is not None
        stack = Stack(state_dir)
        stack.layout.make()
        earlier = ProcessId(now.pid, now.started - 1, now.boot)
        other_boot = ProcessId(now.pid, now.started, "00000000-0000-0000-0000-000000000000")
        for past in (earlier, other_boot):
            item = component(servers, "nats")
            listed = type(item)(name="nats", kind="server", state="ready", address="", process=past)
            content = StackRecord(state="running", supervisor=past, since="", components=(listed,))
            write_record(stack.layout, content)

            assert not down(state_dir)

        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_component_that_cannot_start_is_named_and_nothing_is_left(state_dir: Path) -> None:
    stack = Stack(state_dir)
    stack.layout.make()
    (stack.layout.nats / "jetstream").write_text("not a directory")

    with pytest.raises(ComponentFailed, match="nats did not start: ended with") as failure:
        up(state_dir, services=())

    assert "jetstream" in failure.value.log_tail.lower()
    assert not record(stack).components
    assert record(stack).supervisor.wait(5)
