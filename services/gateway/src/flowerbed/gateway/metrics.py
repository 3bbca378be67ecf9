"""What Prometheus is told of federations, leases and clients, counted when it asks.

Every replica reads the same database and says the same: an expression takes the `max` over them.
No label holds what clients or authors name freely, but the tenant: the first `MOST_TENANTS` in
need have a series each, all others share one.
"""

from collections.abc import Mapping

from prometheus_client import Gauge

from flowerbed.events.database import Database

MOST_TENANTS = 50
OTHERS = "(others)"
"""No tenant can have this name."""

_PROGRESS = [
    "fl.federation.created", "fl.federation.started", "fl.federation.resumed",
    "fl.round.started", "fl.round.evaluation_started", "fl.round.completed",
    "fl.update.submitted", "fl.update.accepted", "fl.aggregate.completed", "fl.artifact.recorded",
]  # fmt: skip
"""What moves a federation on. Clients that come and go do not."""

STATUSES = (
    "submitted", "created", "running", "paused", "completed", "failed", "cancelled", "rejected",
)  # fmt: skip
LEASES = ("issued", "joined", "dropped", "released")
CLIENTS = ("invited", "enrolled", "revoked")

FEDERATIONS = Gauge("fl_federations", "Federations by where they stand.", ["status"])
PROGRESS = Gauge(
    "fl_federation_last_progress_timestamp_seconds",
    "When the open federation that stands still the longest moved last, by tenant.",
    ["tenant"],
)
OPEN_LEASES = Gauge("fl_leases", "Leases in federations that are open, by their state.", ["status"])
ENROLLED = Gauge("fl_clients", "Clients by their state.", ["status"])
EXPIRY = Gauge(
    "fl_client_certificate_expiry_timestamp_seconds",
    "When the first of the certificates that are still good ends, by tenant.",
    ["tenant"],
)
EXPIRED = Gauge(
    "fl_client_certificates_expired",
    "Enrolled clients whose certificate has ended: they need a new invite.",
)
# No federation adds noise yet, so neither of the two has a series: absent, not 0.
EPSILON_SPENT = Gauge(
    "fl_privacy_epsilon_spent",
    "Epsilon spent by the federation nearest to its limit, by tenant; none without noise.",
    ["tenant"],
)
EPSILON_LIMIT = Gauge(
    "fl_privacy_epsilon_limit",
    "Epsilon that the same federation may spend, by tenant; none without noise.",
    ["tenant"],
)

_FEDERATIONS = """
SELECT status, count(*) AS n FROM (
    SELECT status FROM federations
    UNION ALL SELECT 'submitted' FROM submissions s WHERE NOT EXISTS (
        SELECT FROM federations f WHERE f.tenant = s.tenant AND f.federation_id = s.federation_id)
) AS known GROUP BY status
"""

_OPEN = """
SELECT tenant, extract(epoch FROM min(at))::float8 AS at FROM (
    SELECT f.tenant, coalesce(moved.at, f.created_at) AS at
    FROM federations f LEFT JOIN LATERAL (
        SELECT e.recorded_at AS at FROM events e
        WHERE e.meta ->> 'correlation_id' = f.federation_id AND e.type = ANY ($1)
        ORDER BY e.gpos DESC LIMIT 1) AS moved ON true
    WHERE f.status IN ('created', 'running')
    UNION ALL SELECT s.tenant, s.submitted_at FROM submissions s WHERE NOT EXISTS (
        SELECT FROM federations f WHERE f.tenant = s.tenant AND f.federation_id = s.federation_id)
) AS open GROUP BY tenant
"""

_LEASES = """
SELECT m.status, count(*) AS n FROM memberships m JOIN federations f USING (tenant, federation_id)
WHERE f.status IN ('created', 'running', 'paused') GROUP BY m.status
"""

_CLIENTS = "SELECT status, count(*) AS n FROM clients GROUP BY status"

_CERTIFICATES = """
SELECT tenant,
    extract(epoch FROM min(certificate_expires_at)
        FILTER (WHERE certificate_expires_at > now()))::float8 AS at,
    count(*) FILTER (WHERE certificate_expires_at <= now()) AS n_expired
FROM clients WHERE status = 'enrolled' GROUP BY tenant
"""


async def measure(database: Database) -> None:
    async with database.read_all() as connection:
        federations = await connection.fetch(_FEDERATIONS)
        open_ = await connection.fetch(_OPEN, _PROGRESS)
        leases = await connection.fetch(_LEASES)
        clients = await connection.fetch(_CLIENTS)
        certificates = await connection.fetch(_CERTIFICATES)
    for gauge, known, rows in (
        (FEDERATIONS, STATUSES, federations),
        (OPEN_LEASES, LEASES, leases),
        (ENROLLED, CLIENTS, clients),
    ):
        counts = dict.fromkeys(known, 0) | {row["status"]: row["n"] for row in rows}
        for status, n in counts.items():
            gauge.labels(status).set(n)
    _tell(PROGRESS, {row["tenant"]: row["at"] for row in open_})
    _tell(EXPIRY, {row["tenant"]: row["at"] for row in certificates if row["at"] is not None})
    EXPIRED.set(sum(row["n_expired"] for row in certificates))


def soonest(values: Mapping[str, float]) -> dict[str, float]:
    """The tenants with the least values by name, and the least of all others."""
    ordered = sorted(values.items(), key=lambda item: item[1])
    named, others = ordered[:MOST_TENANTS], ordered[MOST_TENANTS:]
    return dict(named) | ({OTHERS: others[0][1]} if others else {})


def _tell(gauge: Gauge, values: Mapping[str, float]) -> None:
    gauge.clear()  # of tenants that have none any more
    for tenant, value in soonest(values).items():
        gauge.labels(tenant).set(value)
