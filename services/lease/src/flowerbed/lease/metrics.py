"""The service's Prometheus metrics. Their names are fixed; dashboards and alerts rely on them."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import Counter, Gauge

from flowerbed.contracts.client import (
    ClientDeclined,
    ClientDropped,
    ClientJoined,
    ClientLeaseIssued,
)
from flowerbed.events.database import after_commit
from flowerbed.events.store import Recorded
from flowerbed.lease.pki import ends_at

logger = logging.getLogger(__name__)

REASONS = frozenset(
    {
        "unknown-key", "signature", "wrong-type", "claims", "unknown-app", "wrong-issuer",
        "wrong-audience", "not-yet-valid", "expired", "wrong-tenant", "lease-mismatch",
        "dataset-not-admitted", "dataset-changed", "code-hash", "dataset-unreadable",
        "dataset-gone", "disk-full",
    }
)  # fmt: skip
"""What a site may say when it declines. Its code is its own word: any other counts as `other`."""

LEASES_OFFERED = Counter("fl_leases_offered_total", "Leases issued to clients")
CLIENTS_JOINED = Counter("fl_clients_joined_total", "Leases claimed by clients")
JOINS_FAILED = Counter(
    "fl_client_joins_failed_total", "Leases that a site declined, or could not claim", ["reason"]
)
CLIENTS_DROPPED = Counter("fl_clients_dropped_total", "Clients that fell silent under a lease")

CERTIFICATE_ENDS = Gauge(
    "fl_server_certificate_expiry_timestamp_seconds",
    "When the control plane's own certificates end: of its authority, and of its doors.",
    ["kind"],
)

for _reason in (*REASONS, "other"):
    JOINS_FAILED.labels(_reason)  # from 0 on, so that the first one is seen as an increase


def count(recorded: Iterable[Recorded[Any]]) -> None:
    """Counted once the events have committed; a repeated command records none."""
    for one in recorded:
        match one.event:
            case ClientLeaseIssued():
                after_commit(LEASES_OFFERED.inc)
            case ClientJoined():
                after_commit(CLIENTS_JOINED.inc)
            case ClientDeclined(code=code):
                after_commit(_failed(code).inc)
            case ClientDropped():
                after_commit(CLIENTS_DROPPED.inc)


def refused(code: str) -> None:
    """A claim was answered with no, which is no event."""
    _failed(code).inc()


async def tell_certificates(files: Mapping[str, Path | None]) -> None:
    """Read again each time: the one of the doors is renewed while we run."""
    for kind, path in files.items():
        try:
            if path is not None:
                CERTIFICATE_ENDS.labels(kind).set(ends_at(path).timestamp())
        except (OSError, ValueError) as error:
            logger.warning("the certificate of %s cannot be read: %s", kind, error)


def _failed(code: str) -> Counter:
    return JOINS_FAILED.labels(code if code in REASONS else "other")
