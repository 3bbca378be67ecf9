"""Who is joined to a federation and what it starts from: facts of other services, kept here."""

from datetime import datetime

from flowerbed.contracts.client import ClientJoined
from flowerbed.contracts.values import ArtifactRef
from flowerbed.events.database import Connection
from flowerbed.orchestrator.state import Member, Pool


async def lock(tx: Connection, federation_id: str) -> None:
    """One at a time may change a federation, so nobody decides on what another is changing."""
    await tx.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", federation_id)


async def join(tx: Connection, tenant: str, joined: ClientJoined) -> None:
    await tx.execute(
        "INSERT INTO members (federation_id, client_id, tenant, lease_id, lease_epoch,"
        " dataset_sha256) VALUES ($1, $2, $3, $4, $5, $6)"
        " ON CONFLICT (federation_id, client_id) DO UPDATE SET"
        " lease_id = EXCLUDED.lease_id, lease_epoch = EXCLUDED.lease_epoch,"
        " dataset_sha256 = EXCLUDED.dataset_sha256",
        joined.federation_id, joined.client_id, tenant, joined.lease_id, joined.epoch,
        joined.dataset.sha256,
    )  # fmt: skip


async def leave(tx: Connection, federation_id: str, client_id: str, epoch: int) -> None:
    await tx.execute(
        "DELETE FROM members WHERE federation_id = $1 AND client_id = $2 AND lease_epoch <= $3",
        federation_id,
        client_id,
        epoch,
    )


async def pool(tx: Connection, federation_id: str) -> Pool:
    rows = await tx.fetch(
        "SELECT client_id, lease_id, lease_epoch, dataset_sha256 FROM members"
        " WHERE federation_id = $1 ORDER BY dataset_sha256, client_id",
        federation_id,
    )
    return tuple(
        Member(
            client_id=row["client_id"],
            lease_id=row["lease_id"],
            lease_epoch=row["lease_epoch"],
            dataset_sha256=row["dataset_sha256"],
        )
        for row in rows
    )


async def hear(tx: Connection, tenant: str, federation_id: str, until: datetime) -> None:
    """A whole ServerApp has sent messages, which run out then."""
    await tx.execute(
        "INSERT INTO heard (federation_id, tenant, until) VALUES ($1, $2, $3)"
        " ON CONFLICT (federation_id) DO UPDATE SET until = greatest(heard.until, EXCLUDED.until)",
        federation_id,
        tenant,
        until,
    )


async def heard(tx: Connection, federation_id: str) -> datetime | None:
    until: datetime | None = await tx.fetchval(
        "SELECT until FROM heard WHERE federation_id = $1", federation_id
    )
    return until


async def set_base(tx: Connection, tenant: str, federation_id: str, base: ArtifactRef) -> None:
    await tx.execute(
        "INSERT INTO bases (federation_id, tenant, uri, sha256, size) VALUES ($1, $2, $3, $4, $5)"
        " ON CONFLICT (federation_id) DO NOTHING",
        federation_id,
        tenant,
        base.uri,
        base.sha256,
        base.size,
    )


async def base(tx: Connection, federation_id: str) -> ArtifactRef | None:
    row = await tx.fetchrow(
        "SELECT uri, sha256, size FROM bases WHERE federation_id = $1", federation_id
    )
    if row is None:
        return None
    return ArtifactRef(uri=row["uri"], sha256=row["sha256"], size=row["size"])
