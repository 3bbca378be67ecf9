"""The event that is measured, about 1 kB of JSON, and the small table that it is projected into."""

from typing import ClassVar
from uuid import uuid4

from flowerbed.contracts.event import Event, subject
from flowerbed.events.codec import Codec
from flowerbed.events.context import Context

WRITER, JETSTREAM = "lease", "FL_LEASE"
READER = DURABLE = "gateway"
"""The service that owns the stream, and the one that reads all of it in one order."""

NOTE = "A leaf, a stem, a bud that opens when the morning comes; " * 14
N_BEDS = 64


class Reported(Event):
    """Its type is one that the writer may publish and the reader reads.

    `at`: when it was to be written, in seconds since the epoch; 0 where nobody asks.
    """

    type: ClassVar[str] = "fl.client.joined"
    id: str
    at: float
    bed: str
    amount: int
    note: str


CODEC = Codec([Reported])
CONTEXT = Context(tenant="acme", correlation_id="fed-1")
SUBJECT = subject(Reported.type, CONTEXT.tenant, CONTEXT.correlation_id)


def reported(bed: str, amount: int, at: float) -> Reported:
    return Reported(id=str(uuid4()), at=at, bed=bed, amount=amount, note=NOTE)


TABLES = """
CREATE TABLE sums (
    bed text PRIMARY KEY,
    tenant text NOT NULL,
    n integer NOT NULL,
    amount bigint NOT NULL
);
SELECT protect_tenants('sums');
CREATE TABLE handled (id uuid PRIMARY KEY);
"""
"""`handled` is the inbox of who keeps no cursors."""

ADD = """
INSERT INTO sums (bed, tenant, n, amount) VALUES ($1, $2, 1, $3)
ON CONFLICT (bed) DO UPDATE SET n = sums.n + 1, amount = sums.amount + EXCLUDED.amount
"""

ADD_ALL = """
INSERT INTO sums (bed, tenant, n, amount)
SELECT bed, $1, count(*), sum(amount)
FROM unnest($2::text[], $3::bigint[]) AS event (bed, amount) GROUP BY bed ORDER BY bed
ON CONFLICT (bed) DO UPDATE SET n = sums.n + EXCLUDED.n, amount = sums.amount + EXCLUDED.amount
"""
"""The same for many events in one statement."""
