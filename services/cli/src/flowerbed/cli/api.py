"""The gateway as the command line sees it: where it is, what it answers, how it says no."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeAlias

import typer

from flowerbed.cli.failing import CommandFailed as CommandFailed
from flowerbed.cli.failing import Refused as Refused
from flowerbed.cli.failing import Unreachable as Unreachable
from flowerbed.cli.failing import reporting as reporting
from flowerbed.cli.output import BAD_INPUT, FAILED, NOT_RUNNING

if TYPE_CHECKING:
    import httpx

    from flowerbed.embedded.stack import S3Access, Stack

URL_VARIABLE = "FLOWERBED_URL"
TOKEN_VARIABLE = "FLOWERBED_TOKEN"  # noqa: S105  # the name of the variable, not a token

_PATIENCE = 30.0
_SILENCE = 60.0
"""Seconds: a feed gives a sign of life much more often."""
_TRIES = 4

StateDir: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        envvar="FLOWERBED_STATE_DIR",
        help="State directory of the local stack, to find the gateway and its token.",
        show_default="the user's data home",
        rich_help_panel="Connection",
    ),
]
Url: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar=URL_VARIABLE,
        help=f"Address of a gateway elsewhere; its token comes from ${TOKEN_VARIABLE} or a file.",
        rich_help_panel="Connection",
    ),
]
TokenFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--token-file", help="File that holds the API token.", rich_help_panel="Connection"
    ),
]
Tenant: TypeAlias = Annotated[
    str | None,
    typer.Option("--tenant", help="Only what this tenant owns.", show_default="all tenants"),
]


class Api:
    """The gateway's HTTP API. Calls that may be repeated are, while it does not answer."""

    def __init__(
        self, url: str, token: str, *, transport: "httpx.BaseTransport | None" = None
    ) -> None:
        import httpx

        self.url = url.rstrip("/")
        headers = {"authorization": f"Bearer {token}"}
        self._client = httpx.Client(base_url=self.url, headers=headers, transport=transport)

    def stream(self, after: int, **params: Any) -> Iterator[dict[str, Any]]:
        """The durable feed from a position on, until the connection breaks.

        Raises:
            Unreachable: it has broken; what comes next lies behind the last event's position.
        """
        import httpx

        from flowerbed.cli.rate_limit import Waits
        from flowerbed.cli.sse import events

        given = {name: value for name, value in params.items() if value is not None}
        headers = {"accept": "text/event-stream", "last-event-id": str(after)}
        timeout = httpx.Timeout(_PATIENCE, read=_SILENCE)
        try:
            with self._client.stream(
                "GET", "/events", params=given, headers=headers, timeout=timeout
            ) as answer:
                if not answer.is_success:
                    answer.read()
                    if Waits().wait(answer):
                        raise Unreachable("the gateway was asked too often; asking again")
                    raise _refusal(answer)
                yield from events(answer.iter_lines())
        except httpx.TransportError as error:
            raise self._away(error) from error
        raise Unreachable(f"the gateway at {self.url} has ended the feed")

    def close(self) -> None:
        self._client.close()

    def get(self, path: str, *, tries: int = 1, patience: float = _PATIENCE, **params: Any) -> Any:
        given = {name: value for name, value in params.items() if value is not None}
        return self._repeat(tries, "GET", path, params=given, timeout=patience)

    def history(self, federation_id: str, after: int = 0) -> list[dict[str, Any]]:
        """All events of a federation after that position, oldest first."""
        found: list[dict[str, Any]] = []
        while True:
            page = self.get(
                f"/federations/{federation_id}/events", after=after, limit=1000, tries=2
            )
            if not page["events"]:
                return found
            found += page["events"]
            after = page["next_after"]

    def post(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        patience: float = _PATIENCE,
        **params: Any,
    ) -> Any:
        given = {name: value for name, value in params.items() if value is not None}
        return self._call("POST", path, json=body or {}, params=given, timeout=patience)

    def delete(self, path: str) -> None:
        self._call("DELETE", path)

    def submit(self, document: bytes, key: str, tenant: str | None = None) -> Any:
        """Post a FederationSpec; the key makes it safe to post again when no answer came."""
        headers = {"idempotency-key": key, "content-type": "application/yaml"}
        params = {"tenant": tenant} if tenant else {}
        return self._repeat(
            _TRIES, "POST", "/federations", content=document, headers=headers, params=params
        )

    def push(self, bundle: bytes, tenant: str | None = None) -> Any:
        """Store a Flower app's bundle; the same bytes may be pushed again."""
        params = {"tenant": tenant} if tenant else {}
        headers = {"content-type": "application/zip"}
        return self._repeat(_TRIES, "POST", "/apps", content=bundle, headers=headers, params=params)

    def federation(self, federation_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"/federations/{federation_id}")
        return found

    def pages(self, path: str, items: str, **params: Any) -> Iterator[dict[str, Any]]:
        """Every item of a list, page by page."""
        cursor = None
        while True:
            page = self.get(path, cursor=cursor, **params)
            yield from page[items]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def _repeat(self, tries: int, method: str, path: str, **request: Any) -> Any:
        for attempt in range(1, tries):
            try:
                return self._call(method, path, **request)
            except Unreachable:
                time.sleep(0.5 * attempt)
        return self._call(method, path, **request)

    def _call(self, method: str, path: str, **request: Any) -> Any:
        import httpx

        from flowerbed.cli.rate_limit import Waits

        request.setdefault("timeout", _PATIENCE)
        waits = Waits()
        try:
            answer = self._client.request(method, path, **request)
            while waits.wait(answer):  # nothing was done: a limit is looked at before all else
                answer = self._client.request(method, path, **request)
        except httpx.TransportError as error:
            raise self._away(error) from error
        if answer.is_success:
            return answer.json() if answer.content else None
        raise _refusal(answer)

    def _away(self, error: Exception) -> Unreachable:
        reason = str(error) or type(error).__name__
        hint = "`flowerbed status` tells what runs"
        return Unreachable(f"the gateway at {self.url} does not answer: {reason}; {hint}")


def _refusal(answer: "httpx.Response") -> CommandFailed:
    problem = _problem(answer)
    if answer.status_code == 503:
        return Unreachable(str(problem.get("detail") or "a service does not answer"))
    return Refused(answer.status_code, problem)


def _problem(answer: "httpx.Response") -> dict[str, Any]:
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    if isinstance(problem, dict):
        return problem
    return {"title": f"the gateway answered {answer.status_code}"}


# --- finding it -------------------------------------------------------------


def connect(url: str | None, token_file: Path | None, state_dir: Path | None) -> Api:
    """The gateway at `url`, or that of the local stack."""
    if url is not None:
        return Api(_checked(url), _token(token_file) or _no_token())
    with _finding():
        stack = local_stack(state_dir)
        return Api(stack.gateway_url, _token(token_file) or stack.api_token)


def local_s3(state_dir: Path | None) -> "S3Access":
    """Where the local stack keeps its objects."""
    with _finding():
        return local_stack(state_dir).s3


def local_stack(state_dir: Path | None) -> "Stack":
    from flowerbed.embedded.stack import Stack

    return Stack(state_dir)


@contextmanager
def _finding() -> Iterator[None]:
    from flowerbed.embedded.errors import BadInput, EmbeddedError, NotRunning

    try:
        yield
    except NotRunning as error:
        hint = f"start one with `flowerbed up`, or name a gateway with --url or ${URL_VARIABLE}"
        raise CommandFailed(f"{error}; {hint}", exit_code=NOT_RUNNING) from error
    except EmbeddedError as error:
        exit_code = BAD_INPUT if isinstance(error, BadInput) else FAILED
        raise CommandFailed(str(error), exit_code=exit_code) from error


def _checked(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise CommandFailed(f"--url {url!r} is no http:// address", exit_code=BAD_INPUT)
    return url


def _token(token_file: Path | None) -> str | None:
    if token_file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        return token_file.read_text().strip()
    except OSError as error:
        message = f"--token-file {token_file}: {error.strerror}"
        raise CommandFailed(message, exit_code=BAD_INPUT) from error


def _no_token() -> NoReturn:
    message = f"a gateway at --url needs its token: --token-file or ${TOKEN_VARIABLE}"
    raise CommandFailed(message, exit_code=BAD_INPUT)
