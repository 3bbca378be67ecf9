"""Rows of the read models, and what is made of them."""

import json
from typing import Any

from flowerbed.events.database import Connection
from flowerbed.events.errors import NotFound
from flowerbed.gateway.views import Artifact, Ref, Round, UpdateCounts

# A federation that was posted here is seen at once, and by its name even when it is rejected. How
# many exchanges a whole ServerApp will have is its secret, and which is done its thread's.
FEDERATIONS = """
SELECT f.tenant, f.federation_id, f.submission_id, f.status,
    coalesce(w.newest, f.round_number) AS round_number,
    coalesce(w.n_completed, f.n_rounds_completed) AS n_rounds_completed,
    f.problems, f.code, f.reason, f.base_sha256, f.final_sha256, f.final_uri,
    f.join_deadline_at, f.pause_expires_at, f.created_at, f.started_at, f.ended_at,
    greatest(f.updated_at, w.updated_at) AS updated_at,
    coalesce(nullif(f.name, ''), s.name, '') AS name, coalesce(f.spec, s.spec) AS spec,
    coalesce(w.newest, CASE WHEN f.n_rounds = 0 THEN coalesce(s.n_rounds, 0) ELSE f.n_rounds END)
        AS n_rounds
FROM federations f LEFT JOIN submissions s USING (tenant, federation_id)
LEFT JOIN LATERAL (
    SELECT max(x.round_number) AS newest,
        max(greatest(x.started_at, x.finished_at)) AS updated_at,
        count(*) FILTER (WHERE x.status = 'completed') AS n_completed
    FROM rounds x WHERE f.is_whole AND f.status <> 'completed'
        AND x.tenant = f.tenant AND x.federation_id = f.federation_id
    HAVING count(*) > 0
) AS w ON true
UNION ALL
SELECT s.tenant, s.federation_id, s.submission_id, 'submitted', 0, 0,
    '[]', '', '', NULL, NULL, NULL,
    NULL, NULL, s.submitted_at, NULL, NULL, s.submitted_at,
    s.name, s.spec, s.n_rounds
FROM submissions s
WHERE NOT EXISTS (
    SELECT FROM federations f
    WHERE f.tenant = s.tenant AND f.federation_id = s.federation_id)
"""

UPDATE_BYTES = """
(SELECT json_build_object('form', max(u.form), 'sent', sum(u.size), 'full', sum(u.full_size),
    'error', avg(u.form_error))::text FROM round_updates u
    WHERE u.federation_id = x.federation_id AND u.tenant = x.tenant AND u.attempt = x.attempt
        AND u.round_number = x.round_number AND u.exchange = 'train' AND u.status = 'accepted'
) AS update_bytes
"""
"""Of a row `x` of rounds."""

_JSON = frozenset(
    ("spec", "problems", "training", "evaluation", "metrics", "data", "folded", "update_bytes")
)


def plain(row: Any) -> dict[str, Any]:
    return {
        name: json.loads(value) if name in _JSON and value is not None else value
        for name, value in row.items()
    }


async def federation_row(connection: Connection, federation_id: str) -> dict[str, Any]:
    row = await connection.fetchrow(
        f"SELECT * FROM ({FEDERATIONS}) AS known WHERE federation_id = $1", federation_id
    )
    if row is None:
        raise NotFound(
            f"no federation {federation_id} is known;"
            " one that was published on NATS shows up when the orchestrator has taken it"
        )
    return plain(row)


async def rounds_of(connection: Connection, federation_id: str) -> list[Round]:
    rows = await connection.fetch(
        "SELECT x.*, extract(epoch FROM finished_at - started_at)::float8 AS total_seconds,"
        f"{UPDATE_BYTES} FROM rounds x WHERE federation_id = $1 ORDER BY round_number, attempt",
        federation_id,
    )
    counted = await connection.fetch(
        "SELECT round_number, attempt, exchange, json_object_agg(status, n)::text AS counts"
        " FROM (SELECT round_number, attempt, exchange, status, count(*) AS n"
        " FROM round_updates WHERE federation_id = $1"
        " GROUP BY round_number, attempt, exchange, status) AS counted"
        " GROUP BY round_number, attempt, exchange",
        federation_id,
    )
    counts = {
        (row["round_number"], row["attempt"], row["exchange"]): UpdateCounts.model_validate_json(
            row["counts"]
        )
        for row in counted
    }
    none = UpdateCounts()
    return [
        Round(
            **plain(row),
            train_updates=counts.get((row["round_number"], row["attempt"], "train"), none),
            evaluate_updates=counts.get((row["round_number"], row["attempt"], "evaluate"), none),
        )
        for row in rows
    ]


async def artifacts_of(connection: Connection, column: str, value: str) -> list[Artifact]:
    rows = await connection.fetch(
        f"SELECT * FROM artifacts WHERE {column} = $1"
        " ORDER BY recorded_at, round_number, attempt, kind",
        value,
    )
    return [Artifact(**plain(row)) for row in rows]


def uri_of(artifacts: list[Artifact], sha256: str | None) -> str | None:
    return next((artifact.uri for artifact in artifacts if artifact.sha256 == sha256), None)


def ref(sha256: str | None, uri: str | None) -> Ref | None:
    return None if sha256 is None else Ref(sha256=sha256, uri=uri)
