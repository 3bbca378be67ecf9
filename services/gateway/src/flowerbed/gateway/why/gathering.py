"""Reads what `why` needs of one federation: a few short pieces of the events, by stream.

The cost grows with the clients of the federation and not with its rounds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from flowerbed.contracts.federation import FederationPolicyChanged
from flowerbed.contracts.round import ExchangeStarted
from flowerbed.contracts.server_app import ServerAppStarted
from flowerbed.contracts.spec import FederationSpec, Spec
from flowerbed.events.connection import Connection
from flowerbed.events.recorded import Recorded
from flowerbed.events.store import COLUMNS, EventStore
from flowerbed.gateway.consumers import codec
from flowerbed.gateway.views import ENDED
from flowerbed.gateway.why import errors
from flowerbed.gateway.why.facts import Client, Ended, Facts, Starting, Submitted
from flowerbed.gateway.why.folding import Told, declines, standing, with_decline

_PER_LEASE = 5
"""Since a round started its client answers two exchanges, and one of an earlier round."""
_PER_APP = 50
"""The newest facts of a whole ServerApp."""
_LOOKED_BACK = 20_000
_ERRORS = 100

_OWN = f"""
SELECT {COLUMNS} FROM events
WHERE stream = $1 AND tenant = $2 AND version >= coalesce(
    (SELECT max(version) FROM events WHERE stream = $1 AND type = 'fl.round.started'), 1)
ORDER BY version LIMIT 5000
"""
_POLICY = f"""
SELECT {COLUMNS} FROM events
WHERE stream = $1 AND tenant = $2 AND type = 'fl.federation.policy_changed'
ORDER BY version DESC LIMIT 1
"""
_LEASES = f"""
SELECT newest.* FROM unnest($1::text[]) AS wanted (name) CROSS JOIN LATERAL (
    SELECT {COLUMNS} FROM events WHERE stream = wanted.name AND tenant = $2
        AND type IN ('fl.update.submitted', 'fl.update.failed', 'fl.message.answered',
            'fl.client.declined')
    ORDER BY version DESC LIMIT {_PER_LEASE}) AS newest
"""
_EXCHANGES = f"""
SELECT {COLUMNS} FROM events WHERE stream = ANY ($1::text[]) AND tenant = $2
ORDER BY stream, version
"""
_JOURNAL = f"""
SELECT newest.* FROM (
    SELECT {COLUMNS} FROM events WHERE stream = $1 AND tenant = $2
    ORDER BY version DESC LIMIT {_PER_APP}) AS newest
ORDER BY version
"""
_RECORDS = f"""
SELECT {COLUMNS} FROM events
WHERE stream = $1 AND tenant = $2 AND type = 'fl.artifact.recorded'
ORDER BY version DESC LIMIT 8
"""
_FAILURES = f"""
SELECT {COLUMNS} FROM (
    SELECT {COLUMNS} FROM events WHERE meta ->> 'correlation_id' = $1 AND tenant = $2
    ORDER BY gpos DESC LIMIT {_LOOKED_BACK}) AS newest
WHERE type = ANY ($3::text[])
    AND (type <> 'fl.round.completed' OR data ->> 'evaluation_error' <> '')
    AND (type <> 'fl.update.rejected' OR data ->> 'code' <> '{errors.LATE}')
ORDER BY gpos DESC LIMIT {_ERRORS}
"""
_MEMBERS = """
SELECT m.client_id, m.status, m.epoch, m.dataset, m.reason,
    CASE m.status WHEN 'joined' THEN m.joined_at WHEN 'issued' THEN m.issued_at
        ELSE coalesce(m.ended_at, m.updated_at) END AS since,
    coalesce(c.tags, '{}') AS tags
FROM memberships m LEFT JOIN clients c USING (tenant, client_id)
WHERE m.federation_id = $1 AND m.tenant = $2 ORDER BY m.client_id
"""
_ENROLLED = """
SELECT c.client_id, c.tags, c.enrolled_at AS since FROM clients c
WHERE c.tenant = $2 AND c.status = 'enrolled' AND c.tags @> $3::text[] AND NOT EXISTS (
    SELECT FROM memberships m
    WHERE m.tenant = c.tenant AND m.federation_id = $1 AND m.client_id = c.client_id)
ORDER BY c.client_id LIMIT 20
"""

_store = EventStore(codec)


async def gather(
    connection: Connection, row: Mapping[str, Any], *, with_errors: bool = False
) -> Facts:
    """The facts of the federation whose row of the read model this is."""
    identity, tenant, status = row["federation_id"], row["tenant"], row["status"]
    clients, epochs = await _members(connection, identity, tenant)
    found = (
        await _fetch(connection, _FAILURES, identity, tenant, list(errors.TYPES))
        if with_errors
        else ()
    )
    known = Facts(
        federation_id=identity,
        status=status,
        stage=Ended(at=row["ended_at"], code=row["code"], reason=row["reason"]),
        clients=clients,
        last_error=errors.last_error(found, {one.client_id: one for one in clients}),
    )
    if status in ENDED:
        return known
    if status == "submitted":
        return replace(known, stage=Submitted(since=row["created_at"]), spec=_spec(row, None))
    return await _running(connection, row, known, epochs)


async def _running(
    connection: Connection, row: Mapping[str, Any], known: Facts, epochs: Mapping[str, int]
) -> Facts:
    identity, tenant = row["federation_id"], row["tenant"]
    stream = f"federation-{identity}"
    spec = _spec(row, await _fetch(connection, _POLICY, stream, tenant))
    own = await _fetch(connection, _OWN, stream, tenant)
    names = [f"lease-{identity}-{client.client_id}" for client in known.clients]
    leases = await _fetch(connection, _LEASES, names, tenant)
    told = Told(
        own=own,
        leases=sorted(leases, key=lambda one: one.version),
        exchanges=await _exchanges(connection, identity, own, tenant),
        records=await _fetch(connection, _RECORDS, f"lineage-{identity}", tenant),
    )
    spare = Starting(since=row["created_at"], until=row["join_deadline_at"])
    now = standing(told, spare)
    declined = declines(told.leases)
    clients = tuple(
        with_decline(one, epochs.get(one.client_id, 0), declined) for one in known.clients
    )
    if isinstance(now.stage, Starting):
        clients += await _enrolled(connection, identity, tenant, spec)
    return replace(known, stage=now.stage, pause=now.pause, spec=spec, clients=clients)


async def _fetch(connection: Connection, query: str, *arguments: Any) -> list[Recorded[Any]]:
    return [_store.recorded(row) for row in await connection.fetch(query, *arguments)]


async def _members(
    connection: Connection, identity: str, tenant: str
) -> tuple[tuple[Client, ...], dict[str, int]]:
    rows = await connection.fetch(_MEMBERS, identity, tenant)
    clients = tuple(
        Client(
            client_id=row["client_id"],
            status=row["status"],
            since=row["since"],
            label=row["dataset"] or "",
            tags=tuple(row["tags"]),
            reason=row["reason"],
        )
        for row in rows
    )
    return clients, {row["client_id"]: row["epoch"] for row in rows}


async def _enrolled(
    connection: Connection, identity: str, tenant: str, spec: Spec | None
) -> tuple[Client, ...]:
    """Clients that the spec would take, and that were never seen here."""
    tags = list(spec.client_selector.tags) if spec is not None else []
    rows = await connection.fetch(_ENROLLED, identity, tenant, tags)
    return tuple(
        Client(
            client_id=row["client_id"],
            status="enrolled",
            since=row["since"],
            tags=tuple(row["tags"]),
        )
        for row in rows
    )


async def _exchanges(
    connection: Connection, identity: str, own: Sequence[Recorded[Any]], tenant: str
) -> list[Recorded[Any]]:
    if any(isinstance(one.event, ServerAppStarted) for one in own):
        return await _fetch(connection, _JOURNAL, f"serverapp-{identity}", tenant)
    return await _fetch(connection, _EXCHANGES, _exchange_streams(identity, own), tenant)


def _exchange_streams(identity: str, own: Sequence[Recorded[Any]]) -> list[str]:
    """Of the last attempt, or of the making of the base while there is none."""
    started = next((one.event for one in own if isinstance(one.event, ExchangeStarted)), None)
    if started is None:
        return [f"exchange-{identity}-0-1-initialize"]
    place = f"{started.round_number}-{started.attempt}"
    return [f"exchange-{identity}-{place}-{exchange}" for exchange in ("train", "evaluate")]


def _spec(row: Mapping[str, Any], changes: Sequence[Recorded[Any]] | None) -> Spec | None:
    """With the policy that holds now; None of a spec that this version cannot read."""
    try:
        spec = FederationSpec.model_validate(row["spec"]).spec
    except ValidationError:
        return None
    for one in changes or ():
        if isinstance(one.event, FederationPolicyChanged):
            spec = spec.model_copy(update={"round_policy": one.event.round_policy})
    return spec
