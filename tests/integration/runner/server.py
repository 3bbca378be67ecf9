"""An ASGI app behind real TLS in a thread of its own, which can go away and come back."""

import asyncio
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

PEERS: dict[tuple[str, int], bytes] = {}
"""The certificate (DER) that each connection's client showed."""


class _PeerProtocol(H11Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        tls = transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        if certificate:
            PEERS[tuple(transport.get_extra_info("peername")[:2])] = certificate
        super().connection_made(transport)


class Server:
    def __init__(self, app: Any, tls: dict[str, Path] | None = None) -> None:
        self._app = app
        self._tls = tls or {}
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        listening = socket.create_server(("127.0.0.1", self.port))
        self.port = listening.getsockname()[1]
        options: dict[str, Any] = {}
        if self._tls:
            options = {"ssl_certfile": self._tls["cert"], "ssl_keyfile": self._tls["key"]}
        if "clients" in self._tls:
            options |= {"ssl_ca_certs": self._tls["clients"], "ssl_cert_reqs": ssl.CERT_REQUIRED}
        config = uvicorn.Config(
            self._app, http=_PeerProtocol, log_level="critical", lifespan="off", ws="none",
            timeout_graceful_shutdown=0, **options,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listening]}, daemon=True
        )
        self._thread.start()
        self._listening = listening

    def ask_to_stop(self) -> None:
        self._server.should_exit = True
        self._server.force_exit = True

    def stop(self) -> None:
        self.ask_to_stop()
        self._thread.join(10)
        self._listening.close()
