"""A TCP proxy that breaks on command: cut, black-holed, slow, healed.

    clients ──> 127.0.0.1:port ──> Link ──> 127.0.0.1:target()

`Links` runs any number of them in a thread with an event loop of its own, so that a test or a
script that is not asynchronous can break them.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
BLOCK = 64 * 1024


class Link:
    """One proxied address. `target` is asked at each connection: a server may move."""

    def __init__(self, target: Callable[[], int], port: int = 0) -> None:
        self.port = port
        self._target = target
        self._server: asyncio.Server | None = None
        self._flows = asyncio.Event()
        self._flows.set()
        self._latency = 0.0
        self._rate = 0.0
        self._open: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Break every connection and refuse new ones."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def black_hole(self) -> None:
        """Accept connections and keep those there are, but pass nothing."""
        self._flows.clear()

    async def slow(self, latency: float, rate: float) -> None:
        """Each block waits `latency` seconds, and no direction passes more than `rate` bytes/s."""
        self._latency, self._rate = latency, rate

    async def heal(self) -> None:
        """What was held back is passed on, in order."""
        self._latency = self._rate = 0.0
        self._flows.set()
        if self._server is None:
            await self.start()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await self._join(reader, writer)
        except asyncio.CancelledError:
            pass  # cut: the server's own callback must not see it
        finally:
            self._open.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward: asyncio.StreamWriter | None = None
        try:
            await self._flows.wait()
            back, onward = await asyncio.open_connection("127.0.0.1", self._target())
            pumps = {
                asyncio.ensure_future(self._pump(reader, onward)),
                asyncio.ensure_future(self._pump(back, writer)),
            }
            try:
                await asyncio.wait(pumps)
            finally:
                for pump in pumps:
                    pump.cancel()
        except OSError:
            pass  # the target is away: the client sees its connection end
        finally:
            for end in (writer, onward):
                if end is not None:
                    end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(BLOCK):
                await self._flows.wait()
                if self._latency or self._rate:
                    await asyncio.sleep(
                        self._latency + (len(data) / self._rate if self._rate else 0.0)
                    )
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except (OSError, RuntimeError):
            writer.transport.abort()  # one end broke, so both are over


class Links:
    """Named links, each controlled from any thread: `links.cut("nats")`, `links.heal("nats")`."""

    def __init__(self, targets: Mapping[str, Callable[[], int]]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._links = self._call(self._started(targets))

    @property
    def ports(self) -> dict[str, int]:
        return {name: link.port for name, link in self._links.items()}

    def cut(self, name: str) -> None:
        self._call(self._links[name].cut())

    def black_hole(self, name: str) -> None:
        self._call(self._links[name].black_hole())

    def slow(self, name: str, latency: float, rate: float) -> None:
        self._call(self._links[name].slow(latency, rate))

    def heal(self, name: str) -> None:
        self._call(self._links[name].heal())

    def close(self) -> None:
        for link in self._links.values():
            self._call(link.cut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _started(self, targets: Mapping[str, Callable[[], int]]) -> dict[str, Link]:
        links = {}
        for name, target in targets.items():
            links[name] = Link(target, _free_port())
            await links[name].start()
        return links

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(10)


def _free_port() -> int:
    """Below the kernel's range for outgoing connections, as the stack's own ports."""
    for port in range(14_999, 10_000, -1):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port")
