"""What holds for every command: it teaches, answers as JSON, fails in one way, can be completed."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer
from click.testing import CliRunner

from flowerbed.cli import tables
from flowerbed.cli.main import app
from flowerbed.cli.output import ExitCode
from flowerbed.cli.reference import Listed, commands
from scripts.generate_cli_reference import PAGE, generated
from tests.unit.cli.federation_views import FED, a_federation
from tests.unit.cli.gateway_stub import stub_gateway

ROOT = typer.main.get_command(app)
COMMANDS = {" ".join(one.path): one for one in commands(ROOT)}
PROGRAM = Path(sys.executable).with_name("flowerbed")


@pytest.mark.parametrize("one", COMMANDS.values(), ids=COMMANDS.keys())
def test_every_command_has_help_an_example_and_output(one: Listed) -> None:
    assert one.command.help
    assert one.examples, "no example"
    options = {option for param in one.command.params for option in param.opts}
    assert {"--output", "-o"} <= options
    for param in one.command.params:
        if isinstance(param, click.Option):
            assert param.help, f"{param.opts[0]} has no help"


@pytest.mark.parametrize("one", COMMANDS.values(), ids=COMMANDS.keys())
def test_the_examples_can_be_typed_so(one: Listed) -> None:
    """Parsed by the command itself: another option, or one that is missing, would be refused."""
    for example in one.examples:
        program, *words = shlex.split(example)
        assert program == "flowerbed" and words[: len(one.path)] == list(one.path)
        one.command.make_context(one.path[-1], words[len(one.path) :])


def test_help_tells_the_exit_codes() -> None:
    shown = CliRunner().invoke(ROOT, ["--help"]).output
    for code in ExitCode:
        assert re.search(rf"\b{code:d} ", shown), code


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        (["federation", "list", "--state-dir", "{tmp}"], "not-running", 3),
        (["federation", "list", "--url", "http://127.0.0.1:9"], "unreachable", 3),
        (["federation", "list", "--url", "ftp://x"], "bad-input", 2),
        (["client", "status", "--state-dir", "{tmp}"], "bad-input", 2),
        (["backup", "{tmp}/b", "--state-dir", "{tmp}"], "not-running", 3),
        (["logs", "--state-dir", "{tmp}"], "not-running", 3),
    ],
)
def test_with_json_an_error_is_one_problem_on_stderr(
    arguments: list[str], code: str, exit_code: int, tmp_path: Path
) -> None:
    given = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    environment = {"FLOWERBED_TOKEN": "t", "FLOWERBED_URL": None, "FLOWERBED_STATE_DIR": None}

    found = CliRunner().invoke(ROOT, [*given, "--output", "json"], env=environment)

    assert (found.exit_code, found.stdout) == (exit_code, "")
    problem = json.loads(found.stderr)
    assert problem["code"] == code and problem["detail"]


def test_the_reference_is_that_of_the_commands() -> None:
    assert PAGE.read_text() == generated(PAGE.read_text()), "run make generate"


# --- completion -------------------------------------------------------------


def completed(shell: str, line: str, **more: str) -> str:
    """What the shell's completion function is told for a line that is being typed."""
    words = line.split(" ")
    environment = os.environ | more | {"_FLOWERBED_COMPLETE": f"complete_{shell}"}
    if shell == "bash":
        environment |= {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    else:
        environment |= {"_TYPER_COMPLETE_ARGS": line}
    done = subprocess.run([PROGRAM], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_commands_and_options_are_completed(shell: str) -> None:
    assert "federation" in completed(shell, "flowerbed fed")
    assert "submit" in completed(shell, "flowerbed federation sub")
    assert "--status" in completed(shell, "flowerbed federation list --sta")
    assert "--federation" in completed(shell, "flowerbed events --fed")


def test_the_ids_of_federations_are_completed() -> None:
    with stub_gateway() as stub:
        stub.answer("GET /federations", {"federations": [a_federation()], "next_cursor": None})
        reached = {"FLOWERBED_URL": stub.url, "FLOWERBED_TOKEN": "t"}
        assert completed("bash", "flowerbed federation show fed-", **reached).strip() == FED
    assert completed("bash", "flowerbed federation show fed-", **reached).strip() == ""


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_completion_can_be_shown_for_a_shell(shell: str) -> None:
    environment = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    arguments = [str(PROGRAM), "--show-completion", shell]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True)
    assert "_FLOWERBED_COMPLETE=complete_" + shell in done.stdout


# --- tables -----------------------------------------------------------------


def test_in_a_pipe_a_row_is_no_longer_than_what_it_says() -> None:
    rows = [("fed-1", None, "a\nreason"), ("fed-22", 3, "")]
    assert tables.plain_table(("id", "rounds", "reason"), rows) == [
        "id      rounds  reason",
        "fed-1   -       a reason",
        "fed-22  3       -",
    ]


@pytest.fixture
def long_reason() -> Iterator[str]:
    with stub_gateway() as stub:
        failed = a_federation("failed", reason="below quorum " * 40)
        stub.answer("GET /federations", {"federations": [failed], "next_cursor": None})
        yield stub.url


def test_a_list_of_federations_fits_into_a_window(long_reason: str) -> None:
    environment = {"FLOWERBED_URL": long_reason, "FLOWERBED_TOKEN": "t"}
    found = CliRunner().invoke(ROOT, ["federation", "list"], env=environment)
    assert max(map(len, found.stdout.splitlines())) <= 170
    assert "below quorum" in found.stdout and "…" in found.stdout
