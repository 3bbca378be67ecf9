"""`flowerbed doctor` of a machine and a stack: each check finds the very thing that is broken."""

import json
import shutil
import socket
from collections import namedtuple
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from click.testing import CliRunner
from typer.main import get_command

from flowerbed.cli.doctor import command, machine, server_checks
from flowerbed.cli.doctor.report import Check, Finding, Level
from flowerbed.cli.doctor.server_checks import Server
from flowerbed.contracts.spec import builtin_apps
from flowerbed.embedded import pki, probes
from flowerbed.embedded.errors import EmbeddedError
from flowerbed.embedded.identity import ProcessId
from flowerbed.embedded.layout import Layout
from flowerbed.embedded.probes import NotReady
from flowerbed.embedded.record import ComponentRecord, StackRecord, write_record
from flowerbed.embedded.setup import Setup
from flowerbed.embedded.stack import Stack
from flowerbed.embedded.status import ComponentStatus, StackStatus
from flowerbed.runner import installed
from tests.unit.cli.gateway_stub import StubGateway, stub_gateway

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "state")
    Setup.prepare(layout)
    return layout


def levels(findings: Iterable[Finding]) -> list[Level]:
    return [one.level for one in findings]


def only(findings: Iterable[Finding]) -> Finding:
    (one,) = findings
    return one


# --- the machine ------------------------------------------------------------


def test_a_package_that_is_missing_or_of_another_release_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert levels(machine.versions(("flowerbed-cli", "flowerbed-runner"))) == [Level.ok]
    missing = list(machine.versions(("flowerbed-cli", "flowerbed-tulips")))
    assert missing[0].level is Level.failed and "flowerbed-tulips" in missing[0].seen
    monkeypatch.setattr(machine, "_version", {"flowerbed-a": "1", "flowerbed-b": "2"}.get)
    assert "1, 2" in next(iter(machine.versions(("flowerbed-a", "flowerbed-b")))).seen
    monkeypatch.setattr(machine, "LOWEST_PYTHON", (9, 9))
    assert Level.failed in levels(machine.versions(()))


def test_an_app_whose_code_was_changed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert levels(machine.apps()) == [Level.ok]
    known = builtin_apps()
    monkeypatch.setattr(installed, "builtin_apps", lambda: known | {"hospital": "0" * 64})
    found = only(machine.apps())
    assert found.level is Level.failed and "hospital" in found.seen


@pytest.mark.parametrize(
    ("free", "level"), [(1 << 20, Level.failed), (1 << 30, Level.warning), (1 << 40, Level.ok)]
)
def test_a_disk_without_room_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, level: Level
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0, 0, free))
    assert only(machine.disk(tmp_path / "not" / "yet")).level is level


@pytest.mark.parametrize(("free", "level"), [(1 << 20, Level.warning), (1 << 33, Level.ok)])
def test_memory_that_runs_out_is_found(
    monkeypatch: pytest.MonkeyPatch, free: int, level: Level
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
    assert only(machine.memory()).level is level


@pytest.mark.parametrize(
    ("synchronised", "level"), [(True, Level.ok), (False, Level.warning), (None, Level.ok)]
)
def test_a_clock_that_nothing_keeps_right_is_found(
    monkeypatch: pytest.MonkeyPatch, synchronised: bool | None, level: Level
) -> None:
    assert machine._is_synchronised() in (True, False, None)
    monkeypatch.setattr(machine, "_is_synchronised", lambda: synchronised)
    assert only(machine.clock_is_kept()).level is level


def test_a_secret_that_others_can_read_is_found(layout: Layout) -> None:
    server = Server(layout)
    assert levels(server.permissions()) == [Level.ok]
    layout.api_token.chmod(0o644)
    layout.secrets.chmod(0o755)
    found = list(server.permissions())
    assert levels(found) == [Level.failed] * 2
    assert {one.do for one in found} == {
        f"chmod 600 {layout.api_token}", f"chmod 700 {layout.secrets}",
    }  # fmt: skip


# --- a stack that does not run ------------------------------------------------


def test_a_server_program_that_is_missing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(server_checks.programs()).level is Level.ok

    def program(name: str) -> str:
        raise EmbeddedError(f"{name} is not installed")

    monkeypatch.setattr(server_checks, "program", program)
    assert only(server_checks.programs()).level is Level.failed


@pytest.mark.parametrize(
    ("ahead", "level"),
    [
        (timedelta(), Level.ok),
        (timedelta(days=380), Level.warning),
        (timedelta(days=400), Level.failed),
        (timedelta(days=-2), Level.failed),
    ],
)
def test_a_certificate_that_is_not_valid_now_is_found(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, ahead: timedelta, level: Level
) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + ahead

    monkeypatch.setattr(server_checks, "datetime", Clock)
    found = {one.seen.split()[0]: one.level for one in Server(layout).certificates()}
    assert found["server.pem"] is level


def test_a_certificate_of_another_ca_is_found(layout: Layout) -> None:
    now = datetime.now(UTC)
    pki._make_ca(layout.secrets / "ca.key", layout.secrets / "ca.pem", now)
    found = list(Server(layout).certificates())
    assert levels(found) == [Level.ok, Level.failed, Level.failed]
    assert "server.pem is not certified by ca.pem" in found[1].seen


def test_a_port_that_somebody_else_holds_is_found(layout: Layout) -> None:
    server = Server(layout)
    assert only(server.ports()).level is Level.ok
    port = json.loads((layout.run / "ports.json").read_text())["gateway_door"]
    with socket.create_server(("127.0.0.1", port)):
        found = only(server.ports())
    assert found.level is Level.warning and "gateway_door" in found.seen


def test_no_stack_or_one_that_is_down_is_found(layout: Layout) -> None:
    server = Server(layout)
    assert "none was ever started" in only(server.is_kept()).seen
    dead = ProcessId(pid=2**22 + 1, started=1, boot="x")
    write_record(layout, StackRecord(state="running", supervisor=dead, since="now"))
    found = only(server.is_kept())
    assert (found.level, found.do) == (Level.failed, "`flowerbed up`")
    running = server.processes, server.lags, server.dead_letters, server.bucket, server.nats_stores
    assert all(list(look()) == [] for look in running)


# --- a stack that runs --------------------------------------------------------


def own() -> ProcessId:
    found = ProcessId.of(__import__("os").getpid())
    assert found is not None
    return found


def component(name: str, **more: Any) -> ComponentStatus:
    kind: Any = "service" if name in ("lease", "gateway") else "server"
    made = ComponentStatus(name=name, kind=kind, pid=1, address="", ready=True)
    return replace(made, **more)


@pytest.fixture
def running(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Server]:
    """A stack that says of its components what a test wants."""

    def make(*components: ComponentStatus) -> Server:
        status = StackStatus(
            state="running", state_dir="", supervisor_pid=1, since="", components=components
        )
        monkeypatch.setattr(server_checks, "read_status", lambda layout: status)
        return Server(layout)

    return make


def test_a_supervisor_without_a_keeper_is_found(layout: Layout) -> None:
    record = StackRecord(state="running", supervisor=own(), since="now")
    write_record(layout, record)
    assert only(Server(layout).is_kept()).level is Level.warning
    write_record(layout, replace(record, keeper=own()))
    assert only(Server(layout).is_kept()).level is Level.ok


def test_a_port_of_a_running_stack_that_is_another_programs_is_found(layout: Layout) -> None:
    port = json.loads((layout.run / "ports.json").read_text())["lease"]
    part = ComponentRecord(name="lease", kind="service", state="ready", address="", process=own())
    record = StackRecord(state="running", supervisor=own(), since="now", components=(part,))
    write_record(layout, record)
    found = only(Server(layout).ports())
    assert found.level is Level.failed and f"lease ({port})" in found.seen
    with socket.create_server(("127.0.0.1", port)):
        assert only(Server(layout).ports()).level is Level.ok


@pytest.mark.parametrize("name", ["postgres", "nats", "s3", "caddy", "lease"])
def test_a_process_that_does_not_answer_is_found(running: Callable[..., Server], name: str) -> None:
    server = running(component(name, ready=False, detail="port 1 does not answer"))
    found = only(server.processes())
    assert found.level is Level.failed and name in found.seen and "does not answer" in found.seen
    assert f"flowerbed logs {name}" in found.do
    assert only(running(component(name, restarts=3)).processes()).level is Level.warning
    assert only(running(component(name)).processes()).level is Level.ok


def test_a_lag_that_does_not_fall_is_found(running: Callable[..., Server]) -> None:
    assert only(running(component("lease", lags={"relay": 5.0})).lags()).level is Level.ok
    found = only(running(component("lease", lags={"relay": 5000.0})).lags())
    assert found.level is Level.warning and "lease relay 5000" in found.seen


def test_nats_that_stores_nothing_is_found(
    running: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = running(component("nats"))
    monkeypatch.setattr(probes, "nats_stuck", lambda *_: None)
    assert only(server.nats_stores()).level is Level.ok
    monkeypatch.setattr(probes, "nats_stuck", lambda *_: "write error: no space")
    assert only(server.nats_stores()).level is Level.failed


def test_a_bucket_that_is_gone_is_found(
    running: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = running(component("s3"))
    for status, level in ((200, Level.ok), (404, Level.failed)):
        monkeypatch.setattr(probes, "s3_call", lambda *_, s=status: (s, b""))
        assert only(server.bucket()).level is level


@pytest.fixture
def gateway(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Iterable[StubGateway]:
    with stub_gateway() as stub:
        monkeypatch.setattr(Stack, "gateway_url", stub.url)
        yield stub


def test_dead_letters_are_found(running: Callable[..., Server], gateway: StubGateway) -> None:
    server, path = running(component("gateway")), "GET /dead-letters"
    answers: tuple[dict[str, list[Any]], ...] = (
        {"dead_letters": [], "unavailable": []},
        {"dead_letters": [{"error": "boom"}], "unavailable": []},
        {"dead_letters": [], "unavailable": ["artifact"]},
    )
    for answer in answers:
        gateway.answer(path, answer)
    gateway.answer(path, {"detail": "no"}, 401)
    found = [only(server.dead_letters()) for _ in range(4)]
    assert levels(found) == [Level.ok, Level.warning, Level.warning, Level.failed]
    assert "boom" in found[1].seen and "artifact" in found[2].seen


# --- how it is told -----------------------------------------------------------


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(get_command(command.app), list(arguments))


def test_a_failed_check_is_exit_code_1_and_json_has_every_finding(layout: Layout) -> None:
    before = {path: path.stat().st_mtime_ns for path in layout.root.rglob("*")}
    shown = invoke("--state-dir", str(layout.root))
    as_json = invoke("--state-dir", str(layout.root), "--output", "json")
    assert shown.exit_code == as_json.exit_code == 1
    assert "failed   stack         none was ever started" in shown.output
    assert "do: `flowerbed up`" in shown.output
    told = json.loads(as_json.stdout)
    assert told["is_ok"] is False and told["counts"]["failed"] == 1
    assert {"check", "level", "seen", "do"} == set(told["findings"][0])
    assert {path: path.stat().st_mtime_ns for path in layout.root.rglob("*")} == before


def test_warnings_are_allowed(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    warned = Check("disk", lambda: [Finding("disk", Level.warning, "little", "free some")])
    monkeypatch.setattr(server_checks, "checks", lambda layout: [warned])
    assert invoke("--state-dir", str(layout.root)).exit_code == 0


def test_a_check_that_breaks_hides_no_other(layout: Layout) -> None:
    def broken() -> list[Finding]:
        raise NotReady("surprise")

    found = Check("broken", broken).findings()
    assert levels(found) == [Level.failed] and "NotReady: surprise" in found[0].seen
