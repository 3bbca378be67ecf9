"""A small control plane: a CA, a signer, both doors over real TLS, and a store for files.

It does what it is told and remembers every byte that it received.
"""

import asyncio
import hashlib
import json
import threading
import time
import uuid
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from joserfc import jws
from joserfc.jwk import OKPKey

from flowerbed.contracts.door import (
    Enrolment,
    Invite,
    LeasePoll,
    LogBatch,
    LogLine,
    WorkFailure,
    WorkReport,
)
from flowerbed.contracts.signed import ALGORITHM, ISSUER, MANIFEST_TYPE, WORK_ORDER_TYPE
from flowerbed.flower_apps import registry
from tests.integration.runner.authority import Authority, client_of, serial_of
from tests.integration.runner.server import PEERS, Server

CLIENT = "site-a"
TENANT = "default"
FEDERATION = "fed-0123456789abcdef"
LEASE = "5b1f3b62-92a5-5d1c-b0b3-7c6f6a9b8f3a"
DEADLINE = 30.0


def wait_for(condition: Callable[[], Any], what: str = "it", seconds: float = DEADLINE) -> Any:
    """What `condition` gives once it is true."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError(f"waited {seconds:g} s for {what}")


class ControlPlane:
    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.signing_key = OKPKey.generate_key("Ed25519", {"kid": "key-1"})
        self.published = [self.signing_key]
        self.certificate_ttl = timedelta(days=1)
        self.invites: dict[str, str] = {}
        self.used: dict[str, bytes] = {}
        self.offers: dict[str, dict[str, Any]] = {}
        self.claims: dict[str, dict[str, Any]] = {}
        self.declines: list[tuple[str, str]] = []
        self.orders: list[str] = []
        self.lost: set[tuple[str, int]] = set()
        self.reports: list[tuple[str, WorkReport]] = []
        self.failures: list[tuple[str, WorkFailure]] = []
        self.released: list[str] = []
        self.lines: dict[tuple[str, int], LogLine] = {}
        self.beats = 0
        self.polls = 0
        self.heartbeat_seconds = 20.0
        self.faults: list[tuple[str, Response]] = []
        self.received = b""
        self.peers: list[int] = []
        self.renewed: list[bytes] = []
        self.files: dict[str, bytes] = {}
        self.puts: list[str] = []
        self._guard = threading.Lock()
        tls = {"cert": folder / "server.pem", "key": folder / "server.key"}
        self.enrol_door = Server(self._app(self._enrol_routes), tls)
        self.client_door = Server(
            self._app(self._client_routes), {**tls, "clients": folder / "ca.pem"}
        )
        self.store = Server(self._app(self._store_routes))

    def close(self) -> None:
        servers = (self.enrol_door, self.client_door, self.store)
        for server in servers:
            server.ask_to_stop()
        for server in servers:
            server.stop()

    def invite(self, client_id: str = CLIENT, tenant: str = TENANT, **changes: str) -> str:
        secret = uuid.uuid4().hex
        self.invites[secret] = client_id
        fields = {
            "enrol_url": self.enrol_door.url, "ca_sha256": self.authority.sha256,
            "client_id": client_id, "tenant": tenant, "secret": secret,
        }  # fmt: skip
        return Invite(**{**fields, **changes}).encode()

    def claims_of(self, **changes: Any) -> dict[str, Any]:
        now = int(time.time())
        app = changes.get("app", "builtin:tiny")
        return {
            "iss": ISSUER, "aud": CLIENT, "nbf": now, "exp": now + 60, "iat": now,
            "jti": uuid.uuid4().hex, "tenant": TENANT, "federation_id": FEDERATION,
            "client_id": CLIENT, "lease_id": LEASE, "lease_epoch": 1, "app": app,
            "code_hash": changes.get("code_hash") or registry.code_hash(app[len("builtin:") :]),
            **changes,
        }  # fmt: skip

    def manifest(self, **changes: Any) -> str:
        manifest = {
            "model_uri": "builtin:tiny", "model_sha256": None, "strategy": "fedavg",
            "hyper_parameters": {}, "limits": {"ttl_seconds": 60},
        }  # fmt: skip
        return self.sign({**self.claims_of(), **manifest, **changes}, MANIFEST_TYPE)

    def offer(self, manifest: str | None = None, epoch: int = 1, **changes: Any) -> None:
        manifest = manifest or self.manifest(lease_epoch=epoch, **changes)
        self.offers[LEASE] = {
            "lease_id": LEASE, "federation_id": FEDERATION, "epoch": epoch, "manifest": manifest,
        }  # fmt: skip

    def order(self, content: bytes, *, dataset_sha256: str, **changes: Any) -> str:
        """A signed train order for round 1, attempt 1, unless `changes` say otherwise."""
        digest = hashlib.sha256(content).hexdigest()
        self.files[f"/base/{digest}"] = content
        claims = self.claims_of(**{k: v for k, v in changes.items() if k in ("app", "code_hash")})
        claims |= {
            "round_number": 1, "attempt": 1, "exchange": "train", "message_type": "train",
            "seed": 7, "config": {}, "dataset_sha256": dataset_sha256,
            "base": {"uri": "s3://flowerbed/base", "sha256": digest, "size": len(content)},
            "download": {"url": f"{self.store.url}/base/{digest}"}, **changes,
        }  # fmt: skip
        name = f"{FEDERATION}.{claims['round_number']}.{claims['attempt']}.{claims['exchange']}"
        claims.setdefault("work_id", f"{name}.{CLIENT}")
        put = f"/updates/{claims['work_id']}"
        upload = {"url": self.store.url + put, "headers": {"if-none-match": "*"}}
        claims.setdefault("upload", {**upload, "uri": f"s3://flowerbed{put}"})
        if claims["message_type"] != "train":
            claims["upload"] = None
        return self.sign(claims, WORK_ORDER_TYPE)

    def sign(self, claims: dict[str, Any], kind: str) -> str:
        header = {"alg": ALGORITHM, "kid": self.signing_key.kid, "typ": kind}
        payload = json.dumps(claims).encode()
        with warnings.catch_warnings(action="ignore"):  # RFC 9864 has a newer name for EdDSA
            return jws.serialize_compact(header, payload, self.signing_key, [ALGORITHM])

    @property
    def said(self) -> list[str]:
        """What the app wrote, as far as it has come here."""
        return [line.text for line in list(self.lines.values())]

    def jwks(self) -> dict[str, Any]:
        return {"keys": [dict(key.as_dict(private=False)) for key in self.published]}

    def fail_next(self, path: str, status: int, **headers: str) -> None:
        """The next request whose path ends like this gets this answer instead."""
        problem = {"code": "lease-lost" if status == 410 else "test", "detail": "as the test says"}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.faults.append((path, JSONResponse(problem, status, named)))

    def _app(self, routes: Callable[[FastAPI], None]) -> FastAPI:
        app = FastAPI(openapi_url=None)

        @app.middleware("http")
        async def remember(request: Request, forward: Any) -> Response:
            body = await request.body()
            headers = b"\n".join(b"%b: %b" % pair for pair in request.headers.raw)
            with self._guard:
                self.received += f"{request.method} {request.url}\n".encode() + headers + body
                for fault in self.faults:
                    if request.url.path.endswith(fault[0]):
                        self.faults.remove(fault)
                        return fault[1]
            if request.client and (peer := PEERS.get((request.client.host, request.client.port))):
                self.peers.append(serial_of(peer))
            answer: Response = await forward(request)
            return answer

        routes(app)
        return app

    def _enrol_routes(self, app: FastAPI) -> None:
        @app.get("/ca.pem")
        async def ca() -> Response:
            return Response(self.authority.pem)

        @app.post("/v1/enrol")
        async def enrol(enrolment: Enrolment) -> Any:
            request = x509.load_pem_x509_csr(enrolment.csr_pem.encode())
            key = self.authority.key_of(request)
            if self.invites.get(enrolment.secret) != enrolment.client_id:
                return _problem(403, "invite-unknown", "no such invite")
            if self.used.setdefault(enrolment.secret, key) != key:
                return _problem(409, "invite-used", "the invite was used with another key")
            return {
                "client_id": enrolment.client_id, "tenant": enrolment.tenant,
                "certificate_pem": self._certificate(request, enrolment.client_id),
                "ca_pem": self.authority.pem, "client_url": self.client_door.url,
                "jwks": self.jwks(),
            }  # fmt: skip

    def _certificate(self, request: x509.CertificateSigningRequest, client_id: str) -> str:
        until = datetime.now(UTC) + self.certificate_ttl
        return self.authority.issue(request, client_id, TENANT, until)

    def _client_routes(self, app: FastAPI) -> None:
        @app.get("/.well-known/jwks.json")
        async def jwks() -> Any:
            return self.jwks()

        @app.post("/v1/certificate")
        async def renew(body: dict[str, str], request: Request) -> Any:
            csr = x509.load_pem_x509_csr(body["csr_pem"].encode())
            self.renewed.append(self.authority.key_of(csr))
            return {"certificate_pem": self._certificate(csr, self._peer(request))}

        @app.post("/v1/leases/poll")
        async def poll(body: LeasePoll, request: Request) -> Any:
            self._peer(request)
            self.polls += 1
            known = {(key.lease_id, key.epoch) for key in body.known}
            offers = await _long_poll(
                lambda: [
                    offer for offer in self.offers.values()
                    if (offer["lease_id"], offer["epoch"]) not in known
                ],
                body.wait_seconds,
            )  # fmt: skip
            return {"offers": offers}

        @app.post("/v1/leases/{lease_id}/logs")
        async def logs(lease_id: str, body: LogBatch) -> Any:
            for line in body.lines:
                self.lines.setdefault((body.run, line.number), line)
            return {"status": "recorded"}

        @app.post("/v1/leases/{lease_id}/{what}")
        async def lease(lease_id: str, what: str, body: dict[str, Any]) -> Any:
            if (lease_id, body["epoch"]) in self.lost:
                return _problem(410, "lease-lost", "the lease is over")
            if what == "release":
                self.released.append(lease_id)
                return {"status": "recorded"}
            if what == "decline":
                self.declines.append((body["code"], body["detail"]))
            if what == "claim":
                self.claims[lease_id] = body
            self.beats += what == "heartbeat"
            return {
                "lease_id": lease_id, "epoch": body["epoch"],
                "heartbeat_seconds": self.heartbeat_seconds,
                "expires_at": (datetime.now(UTC) + timedelta(seconds=60)).isoformat(),
            }  # fmt: skip

        @app.post("/v1/leases/{lease_id}/work/next")
        async def work(lease_id: str, body: dict[str, Any]) -> Any:
            gone = (lease_id, body["epoch"])
            found = await _long_poll(lambda: gone in self.lost or self.orders, body["wait_seconds"])
            if gone in self.lost:
                return _problem(410, "lease-lost", "the lease is over")
            return {"order": self.orders[0] if found else None}

        @app.post("/v1/leases/{lease_id}/work/{work_id}/report")
        async def report(lease_id: str, work_id: str, body: WorkReport) -> Any:
            self._settle()
            self.reports.append((work_id, body))
            return {"status": "recorded"}

        @app.post("/v1/leases/{lease_id}/work/{work_id}/failure")
        async def failure(lease_id: str, work_id: str, body: WorkFailure) -> Any:
            self._settle()
            self.failures.append((work_id, body))
            return {"status": "recorded"}

    def _settle(self) -> None:
        with self._guard:
            if self.orders:
                self.orders.pop(0)

    def _peer(self, request: Request) -> str:
        assert request.client is not None
        return client_of(PEERS[(request.client.host, request.client.port)])

    def _store_routes(self, app: FastAPI) -> None:
        @app.get("/{path:path}")
        async def get(path: str) -> Response:
            content = self.files.get(f"/{path}")
            return Response(content, 200 if content is not None else 404)

        @app.put("/{path:path}")
        async def put(path: str, request: Request) -> Response:
            if (
                request.headers.get("if-none-match") != "*"
                or "content-length" not in request.headers
            ):
                return Response(status_code=403)
            self.puts.append(f"/{path}")
            if f"/{path}" in self.files:
                return Response(status_code=412)
            self.files[f"/{path}"] = await request.body()
            return Response(status_code=200)


def _problem(status: int, code: str, detail: str) -> JSONResponse:
    return JSONResponse({"code": code, "detail": detail, "status": status}, status)


async def _long_poll(condition: Callable[[], Any], seconds: float) -> Any:
    until = time.monotonic() + seconds
    while True:
        found = condition()
        if found or time.monotonic() >= until:
            return found
        await asyncio.sleep(0.01)
