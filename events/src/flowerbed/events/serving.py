"""Serve FastAPI apps with uvicorn inside our own event loop: on a port, or on a Unix socket."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.routing import APIWebSocketRoute
from starlette.routing import WebSocketRoute

TICK = 1.0
LONGEST_MESSAGE = 1024 * 1024
"""Bytes that a WebSocket takes at one go, also of somebody who has not said yet who it is."""


def tcp_socket(host: str, port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host, port))
    return listening


def unix_socket(path: Path) -> socket.socket:
    """A socket that only our own user may open; one left over from before is replaced."""
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        listening.bind(str(path))
    finally:
        os.umask(before)
    return listening


class Listener(uvicorn.Server):
    """uvicorn without its signal handlers and without waking ten times a second."""

    def __init__(self, app: FastAPI, listening: socket.socket) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                ws_max_size=LONGEST_MESSAGE,
                ws="auto" if _has_websockets(app.routes) else "none",
                server_header=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=8,
            )
        )
        self._listening = listening
        self._stop = asyncio.Event()

    async def run_until_stopped(self) -> None:
        await self.serve(sockets=[self._listening])

    def stop(self) -> None:
        self.should_exit = True
        self._stop.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        seconds = 0
        while not await self.on_tick(seconds * 10):
            seconds += 1
            try:
                async with asyncio.timeout(TICK):
                    await self._stop.wait()
            except TimeoutError:
                continue


def _has_websockets(routes: Sequence[Any]) -> bool:
    """FastAPI keeps an included router as it is, with the routes inside."""
    return any(
        isinstance(route, WebSocketRoute | APIWebSocketRoute)
        or _has_websockets(getattr(getattr(route, "original_router", None), "routes", ()))
        for route in routes
    )
