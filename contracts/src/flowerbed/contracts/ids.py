"""Names that are derived, so that asking twice gives the same one, and seeds likewise."""

import hashlib
import uuid

_LEASES = uuid.UUID("8a6e0a52-6f0f-4d7e-9a35-5d5e3f1f0c11")


def federation_id(tenant: str, submission_id: str) -> str:
    """The same submission id in the same tenant is the same federation."""
    return "fed-" + _digest(tenant, submission_id)[:16]


def lease_id(federation: str, client: str) -> str:
    return str(uuid.uuid5(_LEASES, f"{federation}/{client}"))


def work_id(federation: str, round_number: int, attempt: int, exchange: str, client: str) -> str:
    return f"{federation}.{round_number}.{attempt}.{exchange}.{client}"


def flower_number(name: str) -> int:
    """Flower's ids of runs and nodes are numbers of up to 63 bits: that of this name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def derive_seed(seed: int, *parts: str | int) -> int:
    """A seed in [0, 2^31) for one purpose, from the spec's seed and e.g. the round and a place.

    sha256 of the parts joined by NUL: independent of process, platform and Python's hash seed.
    """
    return int(_digest(str(seed), *map(str, parts))[:8], 16) & 0x7FFF_FFFF


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
