"""How the CLI speaks: tables and colours on a terminal, plain lines elsewhere, errors in one line.

NO_COLOR is honoured (by rich). Exit codes are those of `ExitCode`, for every command.
"""

import json
import os
import sys
from enum import IntEnum
from typing import Any, NoReturn, TextIO

import typer


class ExitCode(IntEnum):
    """Stable: scripts branch on them."""

    DONE = 0
    FAILED = 1
    BAD_INPUT = 2
    NOT_RUNNING = 3
    INTERRUPTED = 130


FAILED, BAD_INPUT = int(ExitCode.FAILED), int(ExitCode.BAD_INPUT)
NOT_RUNNING, INTERRUPTED = int(ExitCode.NOT_RUNNING), int(ExitCode.INTERRUPTED)

EXIT_CODES = {
    ExitCode.DONE: "done",
    ExitCode.FAILED: "failed, or what was asked about has failed",
    ExitCode.BAD_INPUT: "bad input; nothing was changed",
    ExitCode.NOT_RUNNING: "nothing runs there, or it does not answer: try again later",
    ExitCode.INTERRUPTED: "interrupted; what was started goes on",
}
"""What each of them means, for help and docs."""


def exit_codes() -> str:
    """All of them in one line."""
    return "Exit codes: " + "; ".join(f"{code:d} {text}" for code, text in EXIT_CODES.items()) + "."


def fail(message: str, code: int = FAILED, *, details: str = "") -> NoReturn:
    """One readable line on stderr, what explains it below, and the end."""
    if details:
        typer.echo(details.rstrip("\n"), err=True)
    typer.echo(f"{coloured('error:', 'red', sys.stderr)} {message}", err=True)
    raise typer.Exit(code)


def coloured(text: str, colour: str | None, stream: TextIO | None = None) -> str:
    """For a terminal whose user does not mind colours; for everything else the plain text."""
    plain = os.environ.get("NO_COLOR") or not (stream or sys.stdout).isatty()
    return text if plain or colour is None else typer.style(text, fg=colour)


def print_json(content: Any) -> None:
    typer.echo(json.dumps(content, indent=2, default=str))


def print_json_line(content: Any) -> None:
    """One of many that come one by one."""
    typer.echo(json.dumps(content, separators=(",", ":"), default=str))


def is_terminal() -> bool:
    return sys.stdout.isatty()


def sized(n_bytes: int) -> str:
    size, unit = float(n_bytes), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
