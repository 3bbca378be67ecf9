"""A bearer token of an OIDC issuer: signed by a key of the issuer, for us, and valid now."""

import base64
import json
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from joserfc import jwt
from joserfc.errors import ExpiredTokenError, JoseError
from joserfc.jws import JWSRegistry
from joserfc.jwt import JWTClaimsRegistry

from flowerbed.contracts.issuers import Issuer
from flowerbed.events.http import Unauthorized
from flowerbed.gateway.claims import roles_of
from flowerbed.gateway.issuer_keys import IssuerKeys
from flowerbed.gateway.principal import Principal

ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
    "EdDSA", "Ed25519",
)  # fmt: skip
"""None without a signature, none with a shared secret."""

TYPES = (None, "jwt", "at+jwt", "application/at+jwt")
"""Not a logout token, which may name the same audience."""

LONGEST_TOKEN = 16 * 1024
LONGEST_SUBJECT = 255
REMEMBERED = 1024
REMEMBERED_SECONDS = 60.0
"""A token that was checked is not checked again for so long; its own end comes first."""

# Issuers in the field use the old name of Ed25519.
warnings.filterwarnings("ignore", message="EdDSA is deprecated")

_registry = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
_registry.max_header_length = 4096


class Tokens:
    """`now`: seconds since 1970."""

    def __init__(
        self,
        issuers: Iterable[Issuer],
        *,
        now: Callable[[], float] = time.time,
        keys: Callable[[str], IssuerKeys] = IssuerKeys,
    ) -> None:
        self._issuers = {one.issuer: (one, keys(one.issuer)) for one in issuers}
        self._now = now
        self._known: OrderedDict[str, tuple[float, Principal]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._issuers)

    async def principal(self, token: str) -> Principal:
        """
        Raises:
            Unauthorized: it proves nothing.
            Unavailable: the issuer must be asked for its key, and does not answer.
        """
        known = self._known.get(token)
        if known is not None and self._now() < known[0]:
            return known[1]
        header, issuer, keys = self._read(token)
        algorithm = header.get("alg")
        if algorithm not in ALGORITHMS:
            raise Unauthorized(f"the token is signed with {str(algorithm)[:20]!r}, which is no use")
        if str(header.get("typ", "jwt")).lower() not in TYPES:
            raise Unauthorized("the token is of another kind than an access token")
        key_id = header.get("kid")
        if not isinstance(key_id, str | None):
            raise Unauthorized("the token's kid is no text")
        claims = await _verified(token, algorithm, key_id, keys)
        self._check(claims, issuer)
        principal = Principal(claims["sub"], issuer.issuer, roles_of(issuer, claims))
        self._remember(token, min(claims["exp"], self._now() + REMEMBERED_SECONDS), principal)
        return principal

    async def close(self) -> None:
        for _, keys in self._issuers.values():
            await keys.close()

    def _read(self, token: str) -> tuple[dict[str, Any], Issuer, IssuerKeys]:
        """What it says of itself: only good for finding out whose key to try."""
        parts = token.split(".")
        if len(parts) != 3 or len(token) > LONGEST_TOKEN:
            raise Unauthorized("the token is neither the API token nor one of an issuer")
        header, claims = _object(parts[0]), _object(parts[1])
        name = claims.get("iss")
        known = self._issuers.get(name) if isinstance(name, str) else None
        if known is None:
            raise Unauthorized(f"tokens of issuer {str(name)[:200]!r} are not taken here")
        return header, *known

    def _check(self, claims: dict[str, Any], issuer: Issuer) -> None:
        registry = JWTClaimsRegistry(
            now=int(self._now()),
            leeway=issuer.leeway_seconds,
            iss={"essential": True, "value": issuer.issuer},
            aud={"essential": True, "value": issuer.audience},
            exp={"essential": True},
            sub={"essential": True},
        )
        try:
            registry.validate(claims)
        except ExpiredTokenError as error:
            raise Unauthorized("the token has expired") from error
        except (JoseError, ValueError, TypeError, OverflowError) as error:
            raise Unauthorized(f"the token is not for here: {_said(error)}") from error
        if not 0 < len(claims["sub"]) <= LONGEST_SUBJECT:
            raise Unauthorized(f"the token's sub has not 1 to {LONGEST_SUBJECT} characters")

    def _remember(self, token: str, until: float, principal: Principal) -> None:
        self._known[token] = until, principal
        self._known.move_to_end(token)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)


async def _verified(
    token: str, algorithm: str, key_id: str | None, keys: IssuerKeys
) -> dict[str, Any]:
    for key in await keys.find(key_id, algorithm):
        try:
            return jwt.decode(token, key, registry=_registry).claims
        except (JoseError, ValueError, TypeError):
            continue
    raise Unauthorized("the token is signed by no key of its issuer")


def _object(part: str) -> dict[str, Any]:
    try:
        raw = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Unauthorized("the token cannot be read") from error
    if not isinstance(found, dict):
        raise Unauthorized("the token cannot be read")
    return found


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
