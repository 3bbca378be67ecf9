"""A gateway with canned answers, for the command line to talk to over real HTTP."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from click.testing import Result
from typer.testing import CliRunner


@dataclass
class StubGateway:
    """`answers`: by method and path, a status and a body; a list is answered one by one."""

    url: str = ""
    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    reply_headers: list[dict[str, str]] = field(default_factory=list)
    """Of the next answers, one after the other."""

    def answer(self, request: str, body: Any, status: int = 200) -> None:
        self.answers.setdefault(request, []).append((status, body))

    def next_answer(self, request: str) -> tuple[int, Any]:
        waiting = self.answers.get(request)
        if not waiting:
            return 404, {"status": 404, "code": "not-found", "detail": f"no {request}"}
        found: tuple[int, Any] = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        return found


@contextmanager
def stub_gateway() -> Iterator[StubGateway]:
    stub = StubGateway()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply()

        def do_POST(self) -> None:
            self._reply()

        def do_DELETE(self) -> None:
            self._reply()

        def _reply(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            is_json = self.headers.get("content-type") == "application/json"
            stub.asked.append((self.command, self.path, json.loads(raw) if is_json else raw))
            stub.headers.append({name.lower(): value for name, value in self.headers.items()})
            path = self.path.partition("?")[0]
            status, body = stub.next_answer(f"{self.command} {path}")
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            more = stub.reply_headers.pop(0) if stub.reply_headers else {}
            for name, value in more.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub.url = f"http://127.0.0.1:{server.server_address[1]}"
    serving = threading.Thread(target=server.serve_forever, args=(0.01,))
    serving.start()
    try:
        yield stub
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


def run(app: Any, *arguments: str, url: str | None = None, text: str | None = None) -> Result:
    environment = {"FLOWERBED_TOKEN": "secret", "FLOWERBED_URL": url, "COLUMNS": "300"}
    return CliRunner().invoke(app, list(arguments), env=environment, input=text)
