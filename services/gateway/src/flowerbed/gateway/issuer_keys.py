"""An issuer's public keys: found by discovery, kept, and asked for again when a token names one
that is not known. An issuer that is away does not matter to whom its keys are known of.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey

from flowerbed.contracts.issuers import checked_url, is_loopback
from flowerbed.events.errors import Unavailable

logger = logging.getLogger(__name__)

Key = RSAKey | ECKey | OKPKey

REFRESH_EVERY = 30.0
"""Seconds between two questions, however many unknown keys tokens may name."""
KEEP_FOR = 3600.0
"""Seconds after which keys are asked for anew: one that was withdrawn is not trusted for ever."""
PATIENCE = 5.0
LARGEST_ANSWER = 512 * 1024
SMALLEST_RSA = 2048
_TYPES = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}


class IssuerKeys:
    """`clock` is monotonic."""

    def __init__(
        self,
        issuer: str,
        *,
        refresh_every: float = REFRESH_EVERY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.issuer = issuer
        self._refresh_every = refresh_every
        self._clock = clock
        self._keys: tuple[Key, ...] = ()
        self._asked_at: float | None = None
        self._known_at: float | None = None
        self._failure = ""
        self._one_at_a_time = asyncio.Lock()
        self._refreshing: asyncio.Task[None] | None = None

    async def find(self, key_id: str | None, algorithm: str) -> list[Key]:
        """The keys that may have signed; none if the issuer does not know such a key.

        Raises:
            Unavailable: the key is not known here, and the issuer does not answer.
        """
        found = self._matching(key_id, algorithm)
        if found:
            self._refresh_if_old()
            return found
        async with self._one_at_a_time:
            found = self._matching(key_id, algorithm)
            if not found and self._may_ask():
                await self._refresh()
                found = self._matching(key_id, algorithm)
        if not found and self._failure:
            raise Unavailable(f"issuer {self.issuer} does not tell its keys: {self._failure}")
        return found

    async def close(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()

    def _matching(self, key_id: str | None, algorithm: str) -> list[Key]:
        return [key for key in self._keys if _fits(key, key_id, algorithm)]

    def _may_ask(self) -> bool:
        return self._asked_at is None or self._clock() - self._asked_at >= self._refresh_every

    def _refresh_if_old(self) -> None:
        """Beside the request: nobody waits for it."""
        is_old = self._known_at is None or self._clock() - self._known_at > KEEP_FOR
        is_under_way = self._refreshing is not None and not self._refreshing.done()
        if is_old and self._may_ask() and not is_under_way:
            self._refreshing = asyncio.create_task(self._refresh())

    async def _refresh(self) -> None:
        self._asked_at = self._clock()
        try:
            self._keys = await self._fetch()
        except (httpx.HTTPError, ValueError, TypeError, LookupError) as error:
            self._failure = f"{type(error).__name__}: {error}"[:200]
            logger.warning("the keys of issuer %s: %s", self.issuer, self._failure)
            return
        self._known_at, self._failure = self._clock(), ""

    async def _fetch(self) -> tuple[Key, ...]:
        async with asyncio.timeout(2 * PATIENCE), httpx.AsyncClient(timeout=PATIENCE) as http:
            address = f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"
            described = await _json(http, address)
            if described.get("issuer") != self.issuer:
                raise ValueError(f"its discovery document is that of {described.get('issuer')!r}")
            answer = await _json(http, self._checked(described["jwks_uri"]))
        return read_keys(answer)

    def _checked(self, jwks_uri: str) -> str:
        """Keys come over TLS too, unless the issuer is on this machine."""
        host = urlsplit(checked_url(jwks_uri.partition("?")[0])).hostname
        if urlsplit(jwks_uri).scheme == "http" and not is_loopback(urlsplit(self.issuer).hostname):
            raise ValueError(f"its keys are at {host} without TLS")
        return jwks_uri


async def _json(http: httpx.AsyncClient, url: str) -> dict[str, Any]:
    """No redirect is followed, and no endless answer read."""
    received = bytearray()
    async with http.stream("GET", url, headers={"accept": "application/json"}) as answer:
        if answer.status_code != 200:
            raise ValueError(f"{url} answered {answer.status_code}")
        async for chunk in answer.aiter_bytes():
            received += chunk
            if len(received) > LARGEST_ANSWER:
                raise ValueError(f"{url} answered more than {LARGEST_ANSWER} bytes")
    found = json.loads(received)
    if not isinstance(found, dict):
        raise ValueError(f"{url} did not answer a JSON object")
    return found


def read_keys(document: dict[str, Any]) -> tuple[Key, ...]:
    """Public signing keys; what is of another kind, or too weak, is left out."""
    keys: list[Key] = []
    for one in document["keys"]:
        if not isinstance(one, dict) or one.get("use", "sig") != "sig":
            continue
        if one.get("kty") not in _TYPES:
            continue  # above all: a shared secret is no public key
        try:
            key = JWKRegistry.import_key(one)
        except (JoseError, ValueError, TypeError, KeyError):
            continue
        if isinstance(key, RSAKey) and key.public_key.key_size < SMALLEST_RSA:
            continue
        if isinstance(key, RSAKey | ECKey | OKPKey):
            keys.append(key)
    return tuple(keys)


_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}


def _fits(key: Key, key_id: str | None, algorithm: str) -> bool:
    if key_id is not None and key.kid != key_id:
        return False
    if key.get("alg") not in (None, algorithm) and {key.get("alg"), algorithm} != {
        "EdDSA",
        "Ed25519",
    }:
        return False
    match key:
        case RSAKey():
            return algorithm[:2] in ("RS", "PS")
        case ECKey():
            return _CURVES.get(algorithm) == key.get("crv")
        case _:
            return algorithm in ("EdDSA", "Ed25519") and key.get("crv") == "Ed25519"
