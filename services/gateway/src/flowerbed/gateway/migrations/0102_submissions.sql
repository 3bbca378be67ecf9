-- FederationSpecs that were posted here, so that a repeated key is known and a federation can be
-- seen before the orchestrator has spoken of it. Not a projection: the gateway's own memory.
CREATE TABLE submissions (
    tenant text NOT NULL,
    submission_id text NOT NULL,
    federation_id text NOT NULL,
    name text NOT NULL,
    n_rounds integer NOT NULL,
    spec json NOT NULL,
    spec_sha256 text NOT NULL,
    submitted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, submission_id)
);
CREATE UNIQUE INDEX submissions_federation ON submissions (federation_id, tenant);
SELECT protect_tenants('submissions');
