"""How a command fails: one line on stderr and an exit code; with `--output json` one problem.

The problem is RFC 9457's: the gateway's own, or one made here with the same keys.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import typer

from flowerbed.cli.output import BAD_INPUT, FAILED, INTERRUPTED, NOT_RUNNING, fail

_BAD_INPUT_STATUSES: Final = frozenset({400, 404, 413, 422})
_CODES: Final = {
    FAILED: "failed",
    BAD_INPUT: "bad-input",
    NOT_RUNNING: "not-running",
    INTERRUPTED: "interrupted",
}


class CommandFailed(Exception):
    """A command that cannot go on, in one line for a person. `details`: lines that explain it."""

    def __init__(self, message: str, *, exit_code: int = FAILED, details: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.details = details

    def as_problem(self) -> dict[str, Any]:
        code = _CODES.get(self.exit_code, "failed")
        title = code.replace("-", " ")
        return {"type": "about:blank", "title": title, "code": code, "detail": str(self)}


class Unreachable(CommandFailed):
    """The gateway, or what it needs, does not answer; the same call may work later."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=NOT_RUNNING)

    def as_problem(self) -> dict[str, Any]:
        return super().as_problem() | {"title": "unreachable", "code": "unreachable"}


class Refused(CommandFailed):
    """The gateway said no; `problem` is its problem+json body."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        message = str(problem.get("detail") or problem.get("title") or f"answer {status}")
        exit_code = BAD_INPUT if status in _BAD_INPUT_STATUSES else FAILED
        super().__init__(message, exit_code=exit_code)
        self.status = status
        self.problem = dict(problem)

    @property
    def errors(self) -> list[dict[str, Any]]:
        errors: list[dict[str, Any]] = self.problem.get("errors", [])
        return errors

    def as_problem(self) -> dict[str, Any]:
        return self.problem


@contextmanager
def reporting(*, as_json: bool = False) -> Iterator[None]:
    """Turn what stops a command into a line on stderr (or a problem as JSON) and an exit code."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        raise  # whoever read has gone, as `head` does
    except Exception as error:
        failed = _failure(error)
        if failed is None:
            raise
        _say(failed, as_json)


def _failure(error: Exception) -> CommandFailed | None:
    """What is wrong, in a person's words; None for what nobody expected."""
    from flowerbed.embedded import errors as embedded
    from flowerbed.runner import errors as runner

    match error:
        case CommandFailed():
            return error
        case embedded.NotRunning():
            message = f"{error}; start it with `flowerbed up`"
            return CommandFailed(message, exit_code=NOT_RUNNING)
        case embedded.BadInput() | runner.BadInput():
            return CommandFailed(str(error), exit_code=BAD_INPUT)
        case embedded.ComponentFailed():
            return CommandFailed(str(error), details=error.log_tail)
        case runner.NotReachable():
            return Unreachable(str(error))
        case embedded.EmbeddedError() | runner.RunnerError() | OSError():
            return CommandFailed(str(error))
        case _:
            return None


def _say(failed: CommandFailed, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(failed.as_problem(), indent=2), err=True)
        raise typer.Exit(failed.exit_code) from None
    if isinstance(failed, Refused) and failed.errors:
        from flowerbed.cli.tables import problems_table

        problems_table(failed.errors)
    fail(str(failed), failed.exit_code, details=failed.details)
