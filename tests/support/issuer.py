"""A small OIDC issuer: discovery and keys over HTTP, and tokens that are really signed."""

import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey

from flowerbed.contracts.issuers import Issuer
from flowerbed.events.serving import Listener, tcp_socket
from tests.support.servers import eventually, free_port

AUDIENCE = "flowerbed"
_KEYS: dict[str, RSAKey | ECKey] = {}


def new_key(name: str, algorithm: str = "RS256") -> RSAKey | ECKey:
    """Made once a test run: RSA keys take their time."""
    if name not in _KEYS:
        parameters: Any = {"kid": name, "alg": algorithm, "use": "sig"}
        if algorithm.startswith("ES"):
            _KEYS[name] = ECKey.generate_key("P-256", parameters)
        else:
            _KEYS[name] = RSAKey.generate_key(2048, parameters)
    return _KEYS[name]


class TestIssuer:
    """`asked`: the paths it was asked for. `answers`: what it says in place of the truth."""

    __test__ = False

    def __init__(self) -> None:
        self.port = free_port()
        self.keys: list[RSAKey | ECKey] = [new_key("first")]
        self.asked: list[str] = []
        self.answers: dict[str, Response] = {}
        self._serving: tuple[Listener, asyncio.Task[None]] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/realms/test"

    def settings(self, **more: Any) -> Issuer:
        return Issuer(issuer=self.url, audience=AUDIENCE, **more)

    def claims(self, **more: Any) -> dict[str, Any]:
        now = int(time.time())
        told = {"iss": self.url, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 300}
        return {name: value for name, value in (told | more).items() if value is not None}

    def token(self, key: RSAKey | ECKey | None = None, /, **claims: Any) -> str:
        """Signed with the first key, or with `key`; a claim of None is left out."""
        signing = key or self.keys[0]
        header = {"alg": signing.alg or "RS256", "kid": signing.kid}
        return self.with_header(header, signing, **claims)

    def with_header(self, header: dict[str, Any], key: Any, **claims: Any) -> str:
        return jwt.encode(header, self.claims(**claims), key, algorithms=[header["alg"]])

    async def start(self) -> None:
        listener = Listener(self._app(), tcp_socket("127.0.0.1", self.port))
        self._serving = listener, asyncio.create_task(listener.run_until_stopped())
        await eventually(lambda: listener.started, "the issuer answers")

    async def stop(self) -> None:
        if self._serving is not None:
            listener, serving = self._serving
            self._serving = None
            listener.stop()
            await serving

    def _app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/realms/test/{path:path}")
        async def answer(path: str) -> Response:
            self.asked.append(path)
            if path in self.answers:
                return self.answers[path]
            if path == "keys":
                return JSONResponse(KeySet(list(self.keys)).as_dict(private=False))
            described = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
            return JSONResponse(described)

        return app


@asynccontextmanager
async def issuer() -> AsyncIterator[TestIssuer]:
    made = TestIssuer()
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


def shared_secret(text: bytes) -> OctKey:
    return OctKey.import_key(text)


def signed_with_secret(header: dict[str, Any], claims: dict[str, Any], secret: bytes) -> str:
    """HS256 by hand: libraries refuse to take a public key for a secret, attackers do not."""
    told = ".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
    return f"{told}.{_encoded(hmac.digest(secret, told.encode(), 'sha256'))}"


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
