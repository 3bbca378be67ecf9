"""Signs manifests and work orders: JWS (RFC 7515) with EdDSA (RFC 8037)."""

import warnings
from pathlib import Path
from typing import Any

from joserfc import jws
from joserfc.jwk import OKPKey

from flowerbed.contracts.signed import (
    ALGORITHM,
    MANIFEST_TYPE,
    WORK_ORDER_TYPE,
    Claims,
    Manifest,
    WorkOrder,
)

# RFC 9864 renames EdDSA to Ed25519 in JOSE headers; verifiers in the field know the old name.
warnings.filterwarnings("ignore", message="EdDSA is deprecated")

_TYPES: dict[type[Claims], str] = {Manifest: MANIFEST_TYPE, WorkOrder: WORK_ORDER_TYPE}


class Signer:
    """One Ed25519 key. Its id is its RFC 7638 thumbprint, so a new key is a new id."""

    def __init__(self, key: OKPKey) -> None:
        self._key = key
        self.key_id = key.thumbprint()

    @classmethod
    def load(cls, key_file: Path) -> "Signer":
        return cls(OKPKey.import_key(key_file.read_bytes()))

    def sign(self, claims: Manifest | WorkOrder) -> str:
        """The claims as a compact JWS."""
        header = {"alg": ALGORITHM, "kid": self.key_id, "typ": _TYPES[type(claims)]}
        payload = claims.model_dump_json().encode()
        return jws.serialize_compact(header, payload, self._key, algorithms=[ALGORITHM])

    def jwks(self) -> dict[str, Any]:
        """The public key as a JWK set (RFC 7517)."""
        public = self._key.as_dict(private=False)
        return {"keys": [{**public, "kid": self.key_id, "alg": ALGORITHM, "use": "sig"}]}
