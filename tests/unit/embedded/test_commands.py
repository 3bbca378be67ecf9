"""`flowerbed up | down | status | logs`: what they print, and with which exit code they end."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest
import typer
from click.testing import CliRunner, Result

from flowerbed.cli import main as cli
from flowerbed.embedded import control
from flowerbed.embedded import status as status_module
from flowerbed.embedded.errors import ComponentFailed, EmbeddedError
from flowerbed.embedded.layout import Layout
from flowerbed.embedded.progress import Progress
from flowerbed.embedded.setup import Setup
from flowerbed.embedded.stack import Stack
from flowerbed.embedded.status import ComponentStatus, StackStatus

PROGRAM = Path(sys.executable).with_name("flowerbed")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(
        typer.main.get_command(cli.app), [str(argument) for argument in arguments]
    )


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    Setup.prepare(Layout(tmp_path / "state"))
    return Stack(tmp_path / "state")


def test_help_imports_no_server_and_nothing_heavy() -> None:
    code = (
        "import sys; from flowerbed.cli.main import app; from typer.testing import CliRunner;"
        "CliRunner().invoke(app, ['--help']);"
        "print({'asyncpg', 'nats', 'cryptography', 'httpx', 'torch', 'flwr'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "set()", result.stderr


def test_up_tells_each_step_and_where_things_are(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    def up(state_dir: Path, *, progress: object, **size: int | None) -> Stack:
        assert callable(progress)
        others = ("nats_nodes", "observability", "superlink", "issuers")
        assert size == {"replicas": 2, **dict.fromkeys(others)}
        progress(Progress(component="nats", step="starting"))
        progress(Progress(component="nats", step="ready", seconds=0.4))
        return stack

    monkeypatch.setattr(control, "up", up)

    result = run("up", "--state-dir", stack.state_dir, "--replicas", 2)

    assert result.exit_code == 0
    assert "nats           ready    0.4 s" in result.output
    assert stack.gateway_url in result.output
    assert str(stack.api_token_file) in result.output
    assert stack.api_token not in result.output


def test_the_first_up_shows_the_token_and_no_later_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def up(state_dir: Path, **more: object) -> Stack:
        Setup.prepare(Layout(state_dir))
        return Stack(state_dir)

    monkeypatch.setattr(control, "up", up)
    first = run("up", "--state-dir", tmp_path / "state")
    again = run("up", "--state-dir", tmp_path / "state")
    stack = Stack(tmp_path / "state")
    assert first.output.count(stack.api_token) == 1
    assert f"open {stack.gateway_url}/ in a browser" in first.output
    assert f"it is kept in {stack.api_token_file}" in first.output
    assert stack.api_token not in again.output


def test_up_of_a_running_stack_says_so(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "up", lambda state_dir, **more: stack)
    result = run("up", "--state-dir", stack.state_dir)
    assert result.exit_code == 0
    assert "is running already" in result.output


@pytest.mark.parametrize(
    ("error", "code", "last"),
    [
        (ComponentFailed("nats", "ended", "no disk"), 1, "error: nats did not start: ended"),
        (EmbeddedError("no free port"), 1, "error: no free port"),
        (KeyboardInterrupt(), 130, "error: interrupted; the stack goes on starting, `flowerbed"),
    ],
)
def test_failed_up_is_one_readable_line(
    stack: Stack,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    last: str,
) -> None:
    def up(state_dir: Path, **more: object) -> Stack:
        raise error

    monkeypatch.setattr(control, "up", up)

    result = run("up", "--state-dir", stack.state_dir)

    assert result.exit_code == code
    assert result.stderr.splitlines()[-1].startswith(last)
    assert isinstance(error, ComponentFailed) == ("no disk" in result.stderr)


def test_unusable_state_directory_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "run").write_text("")
    result = run("up", "--state-dir", tmp_path / "state")
    assert result.exit_code == 2
    assert "cannot hold a stack" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [("up", "now"), ("status", "--output", "yaml"), ("logs", "-n", "-1"), ("bloom",)],
)
def test_nonsense_is_bad_input(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


def test_down_of_nothing_is_done(tmp_path: Path) -> None:
    result = run("down", "--state-dir", tmp_path / "state")
    assert (result.exit_code, result.output) == (0, "no stack was running\n")


def test_status_of_nothing_is_three(tmp_path: Path) -> None:
    result = run("status", "--state-dir", tmp_path / "state")
    assert result.exit_code == 3
    assert "no stack was ever started" in result.stderr

    result = run("status", "--state-dir", tmp_path / "state", "--output", "json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["state"] == "stopped"


def found(*, ready: bool) -> StackStatus:
    lease = ComponentStatus(
        name="lease",
        kind="service",
        pid=7 if ready else None,
        address="http://127.0.0.1:18000",
        ready=ready,
        detail="" if ready else "postgres: away",
        lags={"relay": 3},
        since="2026-11-22T08:00:00+00:00",
    )
    return StackStatus(
        state="running",
        state_dir="/state",
        supervisor_pid=6,
        since="2026-11-22T08:00:00+00:00",
        components=(lease,),
    )


@pytest.mark.parametrize("ready", [True, False])
def test_status_is_a_table_and_an_exit_code(monkeypatch: pytest.MonkeyPatch, ready: bool) -> None:
    monkeypatch.setattr(status_module, "read_status", lambda layout: found(ready=ready))

    result = run("status", "--state-dir", "/state")

    assert result.exit_code == (0 if ready else 1)
    row = next(line for line in result.output.splitlines() if line.startswith("lease"))
    assert row.split()[:3] == ["lease", "yes" if ready else "no", "7" if ready else "-"]
    assert "relay 3" in row
    assert ("lease: postgres: away" in result.output) == (not ready)
    assert "\x1b" not in result.output


def test_status_as_json_has_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_module, "read_status", lambda layout: found(ready=True))

    content = json.loads(run("status", "-o", "json", "--state-dir", "/state").stdout)

    assert content["ready"] is True
    assert content["components"][0]["lags"] == {"relay": 3}


def test_logs_are_the_ends_of_all_or_of_one(stack: Stack) -> None:
    stack.layout.log("nats").write_text("one\ntwo\n")
    stack.layout.log("lease").write_text("three\n")

    result = run("logs", "nats", "-n", "1", "--state-dir", stack.state_dir)
    assert result.output == "two\n"
    result = run("logs", "--state-dir", stack.state_dir)
    assert result.output.split() == ["lease", "three", "nats", "one", "nats", "two"]


def test_log_that_does_not_exist_is_bad_input(stack: Stack) -> None:
    stack.layout.log("nats").write_text("")
    result = run("logs", "roses", "--state-dir", stack.state_dir)
    assert result.exit_code == 2
    assert result.stderr == "error: no log is called 'roses', there are nats\n"


def test_logs_of_nothing_is_three(tmp_path: Path) -> None:
    assert run("logs", "--state-dir", tmp_path / "state").exit_code == 3


def test_group_is_imported_when_its_command_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("flowerbed.cli.dead_letters")
    app = typer.Typer(help="Long help.")
    vars(module)["app"] = app

    @app.command()
    def replay(name: str) -> None:
        typer.echo(f"again: {name}")

    @app.command("list")
    def listing() -> None:
        typer.echo("none")

    monkeypatch.setitem(sys.modules, "flowerbed.cli.dead_letters", module)
    group = cli.Group("dead-letters", cli.GROUPS["dead-letters"])

    root = click.Group(commands=[group])

    listed = CliRunner().invoke(root, ["--help"])
    again = CliRunner().invoke(root, ["dead-letters", "replay", "lease-1"])

    assert "Look at events" in listed.output
    assert (again.exit_code, again.output) == (0, "again: lease-1\n")


def test_no_colour_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    from flowerbed.cli.output import coloured

    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b" in coloured("yes", "green", Terminal())  # type: ignore[arg-type]
    monkeypatch.setenv("NO_COLOR", "1")
    assert coloured("yes", "green", Terminal()) == "yes"  # type: ignore[arg-type]
