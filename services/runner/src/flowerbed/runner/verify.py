"""What the control plane has signed, and whether this site may act on it. Nothing runs before.

JWS --signature, typ--> claims --issuer, audience, time, tenant, code--> terms --data--> accepted
"""

import base64
import json
import re
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey
from pydantic import ValidationError

from flowerbed.contracts.apps import BUILTIN, PUSHED, is_pushed
from flowerbed.contracts.door import LeaseOffer
from flowerbed.contracts.forms import KNOWN, UPDATE_FORM
from flowerbed.contracts.signed import (
    ALGORITHM,
    ISSUER,
    MANIFEST_TYPE,
    WORK_ORDER_TYPE,
    Claims,
    Manifest,
    WorkOrder,
)
from flowerbed.contracts.values import DatasetRef
from flowerbed.flower_apps import registry
from flowerbed.runner import clock
from flowerbed.runner.errors import Refused

LEEWAY_SECONDS = 10
"""How far what is known of the control plane's clock may differ from it."""

C = TypeVar("C", bound=Claims)
_TYPES: dict[type[Claims], str] = {Manifest: MANIFEST_TYPE, WorkOrder: WORK_ORDER_TYPE}
_WORK_ID = re.compile(r"[A-Za-z0-9._-]{1,300}")

# The contract says EdDSA, RFC 8037's name; RFC 9864 has a newer one for the same signature.
warnings.filterwarnings("ignore", message="EdDSA is deprecated")


class _Registry(jws.JWSRegistry):
    max_payload_length = 1_000_000


class KeyRing:
    """The pinned signing keys; asks once, over mTLS, for a key that it does not know."""

    def __init__(
        self, jwks: dict[str, Any], refetch: Callable[[], Awaitable[dict[str, Any]]]
    ) -> None:
        self._keys = _keys(jwks)
        self._refetch = refetch

    async def find(self, token: str) -> OKPKey:
        """The key that `token` names.

        Raises:
            Refused: the token has no readable header, or nobody knows its key.
        """
        kid = _header(token).get("kid")
        if kid not in self._keys:
            self._keys = _keys(await self._refetch())
        if kid not in self._keys:
            raise Refused("unknown-key", f"signed with key {kid!r}, which is not published")
        return self._keys[kid]


def _keys(jwks: dict[str, Any]) -> dict[str, OKPKey]:
    return {
        str(key["kid"]): OKPKey.import_key(key)
        for key in jwks.get("keys", [])
        if key.get("kty") == "OKP" and key.get("crv") == "Ed25519" and "kid" in key
    }


def read_claims(token: str, key: OKPKey, kind: type[C]) -> C:
    """Check the signature and the type, then read the claims.

    Raises:
        Refused: the token is not what the control plane signed, or not of this kind.
    """
    signature = token.rpartition(".")[2]
    try:
        if base64.urlsafe_b64encode(_decode(signature)).decode().rstrip("=") != signature:
            raise Refused("signature", "the signature is not in its one spelling")
        registry_ = _Registry(algorithms=[ALGORITHM])
        signed = jws.deserialize_compact(token.encode(), key, [ALGORITHM], registry_)
    except (JoseError, ValueError) as error:
        raise Refused("signature", f"the signature does not hold ({error})") from error
    if signed.headers().get("typ") != _TYPES[kind]:
        found = signed.headers().get("typ")
        raise Refused("wrong-type", f"typ is {found!r}, expected {_TYPES[kind]!r}")
    try:
        return kind.model_validate_json(signed.payload or b"")
    except ValidationError as error:
        fields = ", ".join(str(part["loc"][0]) for part in error.errors() if part["loc"])
        raise Refused("claims", f"the claims are not complete: {fields}") from error


def unverified_work_id(token: str) -> str | None:
    """Which order a token claims to be: only ever used to tell that it was refused."""
    try:
        claims = json.loads(_decode(token.split(".")[1]))
        work_id = claims["work_id"]
    except (ValueError, IndexError, KeyError, TypeError):
        return None
    return work_id if isinstance(work_id, str) and _WORK_ID.fullmatch(work_id) else None


def _header(token: str) -> dict[str, Any]:
    try:
        header = json.loads(_decode(token.split(".")[0]))
    except ValueError as error:
        raise Refused("signature", "the header cannot be read") from error
    if not isinstance(header, dict):
        raise Refused("signature", "the header cannot be read")
    return header


def _decode(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What this site holds claims against."""

    client_id: str
    tenant: str
    dataset: DatasetRef
    dataset_uri: str


def check_offer(manifest: Manifest, offer: LeaseOffer, terms: Terms) -> None:
    """May the lease be claimed?

    Raises:
        Refused: with the first rule that does not hold.
    """
    _check_claims(manifest, terms, clock.now())
    _equal("lease", manifest.lease_id, offer.lease_id)
    _equal("lease epoch", manifest.lease_epoch, offer.epoch)
    _equal("federation", manifest.federation_id, offer.federation_id)
    _admitted("uris", manifest.dataset_uris, terms.dataset_uri)
    _admitted("shards", manifest.dataset_shards, terms.dataset.label)
    _admitted("hashes", manifest.dataset_hashes, terms.dataset.sha256)
    check_form(manifest)


def check_form(manifest: Manifest) -> None:
    """Raises: Refused: updates are wanted in a form that this release has not heard of."""
    if manifest.update is not None and manifest.update.form not in KNOWN:
        names = ", ".join(sorted(KNOWN))
        told = f"updates are to travel as {manifest.update.form}, known here are {names}"
        raise Refused(UPDATE_FORM, told)


def check_order(order: WorkOrder, manifest: Manifest, terms: Terms) -> None:
    """May the work be done under this lease?

    Raises:
        Refused: with the first rule that does not hold.
    """
    _check_claims(order, terms, clock.now())
    _equal("lease", order.lease_id, manifest.lease_id)
    _equal("lease epoch", order.lease_epoch, manifest.lease_epoch)
    _equal("federation", order.federation_id, manifest.federation_id)
    _equal("app", order.app, manifest.app)
    _equal("code hash", order.code_hash, manifest.code_hash)
    if (order.message_type == "train" or order.message) and order.upload is None:
        raise Refused("claims", "a train order says nowhere to put its update")
    if order.dataset_sha256 != terms.dataset.sha256:
        raise Refused(
            "dataset-changed",
            f"the dataset is {terms.dataset.sha256}, the order is for {order.dataset_sha256}",
        )


def app_name(app: str) -> str:
    """Raises: Refused: the app is not one that is installed here."""
    name = app.removeprefix(BUILTIN)
    if not app.startswith(BUILTIN) or name not in registry.BUILTIN:
        raise Refused("unknown-app", f"no app {app!r} is installed here")
    return name


def _check_claims(claims: Claims, terms: Terms, now: float) -> None:
    if claims.iss != ISSUER:
        raise Refused("wrong-issuer", f"issued by {claims.iss!r}, expected {ISSUER!r}")
    if not claims.aud == claims.client_id == terms.client_id:
        raise Refused("wrong-audience", f"for {claims.aud!r}, this is {terms.client_id!r}")
    if now < claims.nbf - LEEWAY_SECONDS:
        raise Refused("not-yet-valid", f"valid in {claims.nbf - now:.0f} s")
    if now >= claims.exp + LEEWAY_SECONDS:
        raise Refused("expired", f"expired {now - claims.exp:.0f} s ago")
    if claims.tenant != terms.tenant:
        raise Refused("wrong-tenant", f"for tenant {claims.tenant!r}, this is {terms.tenant!r}")
    installed = _code_hash(claims.app)
    if claims.code_hash != installed:
        raise Refused(
            "code-hash", f"{claims.app} is {installed} here, the claim says {claims.code_hash}"
        )


def _code_hash(app: str) -> str:
    """Of what would run here. A bundle is named by its digest, which it is held against when it
    comes."""
    return app.removeprefix(PUSHED) if is_pushed(app) else registry.code_hash(app_name(app))


def _equal(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise Refused("lease-mismatch", f"{what} is {found!r}, expected {expected!r}")


def _admitted(what: str, admitted: tuple[str, ...], own: str) -> None:
    if admitted and own not in admitted:
        raise Refused("dataset-not-admitted", f"{own} is not among the manifest's dataset {what}")
