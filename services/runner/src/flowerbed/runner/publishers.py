"""Publishers of apps: who signs bundles, and whose signature a site trusts.

A publisher has an Ed25519 key. The signature lies in the bundle, a compact JWS (RFC 7515) over the
digest of all its other files; a publisher's name is the public key itself, so that whoever allows
it has all that is needed.
"""

import base64
import json
import warnings
from collections.abc import Iterable
from pathlib import Path

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from flowerbed.contracts.bundle import Bundle, read_bundle, with_signature
from flowerbed.runner.errors import BadInput
from flowerbed.runner.state import write_private

ALGORITHM = "EdDSA"
TYPE = "flowerbed-app+jws"
PREFIX = "ed25519:"

# RFC 9864 has a newer name for the same signature.
warnings.filterwarnings("ignore", message="EdDSA is deprecated")


def make_key(path: Path) -> OKPKey:
    """A new key, in a file that only its owner reads.

    Raises:
        BadInput: the file cannot be written, or is there.
    """
    if path.exists():
        raise BadInput(f"{path} is there already")
    key = OKPKey.generate_key("Ed25519", private=True)
    try:
        write_private(path, key.as_pem(private=True))
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from error
    return key


def load_key(path: Path) -> OKPKey:
    """Raises: BadInput: no private Ed25519 key lies there."""
    try:
        key = OKPKey.import_key(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error
    except (JoseError, ValueError, TypeError) as error:
        raise BadInput(f"{path} holds no private Ed25519 key") from error
    if not key.is_private or key.curve_name != "Ed25519":
        raise BadInput(f"{path} holds no private Ed25519 key")
    return key


def name_of(key: OKPKey) -> str:
    """What a site allows: the public key in one word."""
    return f"{PREFIX}{key.as_dict(private=False)['x']}"


def sign(raw: bytes, key: OKPKey) -> bytes:
    """The bundle, signed. The same bundle and key give the same bytes.

    Raises:
        BadBundle: it may not be used, or is signed already.
    """
    bundle = read_bundle(raw)
    said = {"app": bundle.name, "version": bundle.version, "content": bundle.content}
    payload = json.dumps(said, sort_keys=True, separators=(",", ":"))
    header = {"alg": ALGORITHM, "typ": TYPE, "kid": name_of(key)}
    return with_signature(raw, jws.serialize_compact(header, payload, key, [ALGORITHM]))


def signer_of(bundle: Bundle, allowed: Iterable[str]) -> str | None:
    """The one of those publishers who has signed this very content; None if none has."""
    if bundle.signature is None:
        return None
    for name in allowed:
        if _holds(bundle.signature, bundle.content, name):
            return name
    return None


def _holds(signature: str, content: str, name: str) -> bool:
    x = name.removeprefix(PREFIX)
    try:
        key = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": x})
        signed = jws.deserialize_compact(signature.encode(), key, [ALGORITHM])
        said = json.loads(signed.payload or b"")
    except (JoseError, ValueError):
        return False
    is_ours = signed.headers().get("typ") == TYPE
    return is_ours and isinstance(said, dict) and said.get("content") == content


def is_name(text: str) -> bool:
    """Whether it is a public key that a signature can be held against."""
    if not text.startswith(PREFIX):
        return False
    try:
        return len(base64.urlsafe_b64decode(text.removeprefix(PREFIX) + "=")) == 32
    except ValueError:
        return False
