-- What the orchestrator knows from others, and its own deadlines.

-- Joined clients, from fl.client.{joined,dropped,released}.
CREATE TABLE members (
    federation_id text NOT NULL,
    client_id text NOT NULL,
    tenant text NOT NULL,
    lease_id text NOT NULL,
    lease_epoch integer NOT NULL,
    dataset_sha256 text NOT NULL,
    PRIMARY KEY (federation_id, client_id)
);
SELECT protect_tenants('members');

-- Verified base checkpoints, from fl.artifact.recorded of kind base.
CREATE TABLE bases (
    federation_id text PRIMARY KEY,
    tenant text NOT NULL,
    uri text NOT NULL,
    sha256 text NOT NULL,
    size bigint NOT NULL
);
SELECT protect_tenants('bases');

CREATE TABLE deadlines (
    federation_id text PRIMARY KEY,
    tenant text NOT NULL,
    due_at timestamptz NOT NULL
);
CREATE INDEX deadlines_due ON deadlines (due_at);
SELECT protect_tenants('deadlines');
