"""How the CLI speaks: tables and colours on a terminal, plain lines elsewhere, errors in one line.

NO_COLOR is honoured (by rich). Exit codes: 0 done, 1 it failed, 2 bad input, 3 not running.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TextIO

import typer

FAILED, BAD_INPUT, NOT_RUNNING = 1, 2, 3


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


def is_terminal() -> bool:
    return sys.stdout.isatty()


def console() -> Any:
    """A rich console for stdout; rich is slow to import, so only who prints with it pays."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not is_terminal())


@contextmanager
def stack_errors() -> Iterator[None]:
    """Turn what goes wrong with the local stack into one line and an exit code."""
    from flowerbed.embedded.errors import BadInput, ComponentFailed, EmbeddedError, NotRunning

    try:
        yield
    except BadInput as error:
        fail(str(error), BAD_INPUT)
    except NotRunning as error:
        fail(f"{error}; start it with `flowerbed up`", NOT_RUNNING)
    except ComponentFailed as error:
        fail(str(error), FAILED, details=error.log_tail)
    except EmbeddedError as error:
        fail(str(error), FAILED)
