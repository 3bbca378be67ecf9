"""Open federations: what leases are issued for, and on what terms."""

import json
from dataclasses import dataclass
from functools import lru_cache

from flowerbed.contracts.federation import FederationCreated
from flowerbed.contracts.spec import FederationSpec
from flowerbed.events.database import Connection

TELEMETRY = """
SELECT federation_id, spec #> '{spec,telemetry}' AS telemetry FROM federations
WHERE federation_id = ANY ($1)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFederation:
    federation_id: str
    spec: FederationSpec
    code_hash: str

    @property
    def is_over_superlink(self) -> bool:
        return self.spec.spec.runtime == "superlink"

    @property
    def is_simulated(self) -> bool:
        """Its clients are virtual: no site takes part."""
        return self.spec.spec.runtime == "simulation"


async def remember(tx: Connection, tenant: str, created: FederationCreated) -> None:
    """In words that a replica of the release before reads too, where the spec allows it."""
    await tx.execute(
        "INSERT INTO federations (federation_id, tenant, spec, code_hash, tags)"
        " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
        created.federation_id,
        tenant,
        json.dumps(created.federation_spec.brief()),
        created.code_hash,
        list(created.federation_spec.spec.client_selector.tags),
    )


async def forget(tx: Connection, federation_id: str) -> None:
    await tx.execute("DELETE FROM federations WHERE federation_id = $1", federation_id)


async def find(tx: Connection, federation_id: str) -> OpenFederation | None:
    row = await tx.fetchrow(
        "SELECT federation_id, spec, code_hash FROM federations WHERE federation_id = $1",
        federation_id,
    )
    return None if row is None else _open(row["federation_id"], row["spec"], row["code_hash"])


async def admitting(tx: Connection, tags: tuple[str, ...]) -> list[OpenFederation]:
    """The tenant's open federations that a client with these tags may take part in."""
    rows = await tx.fetch(
        "SELECT federation_id, spec, code_hash FROM federations WHERE tags <@ $1::text[]"
        " ORDER BY federation_id",
        list(tags),
    )
    found = [_open(row["federation_id"], row["spec"], row["code_hash"]) for row in rows]
    return [one for one in found if not one.is_simulated]


async def hold_open(tx: Connection, federation_id: str) -> bool:
    """True if it is open and stays so until this transaction ends: its end waits, and sees
    every lease that was issued before it."""
    row = await tx.fetchrow(
        "SELECT 1 FROM federations WHERE federation_id = $1 FOR SHARE", federation_id
    )
    return row is not None


@lru_cache(maxsize=256)
def _open(federation_id: str, spec: str, code_hash: str) -> OpenFederation:
    return OpenFederation(
        federation_id=federation_id,
        spec=FederationSpec.model_validate_json(spec),
        code_hash=code_hash,
    )
