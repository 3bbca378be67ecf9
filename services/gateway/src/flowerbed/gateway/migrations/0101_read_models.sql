-- What people ask about, folded from every service's events. Each table belongs to one projection.

-- History of one federation, in the order in which this service came to know it.
CREATE INDEX events_federation ON events ((meta ->> 'correlation_id'), gpos);

CREATE TABLE federations (
    tenant text NOT NULL,
    federation_id text NOT NULL,
    submission_id text NOT NULL,
    name text NOT NULL DEFAULT '',
    status text NOT NULL,
    round_number integer NOT NULL DEFAULT 0,
    n_rounds integer NOT NULL DEFAULT 0,
    n_rounds_completed integer NOT NULL DEFAULT 0,
    spec json,
    problems json NOT NULL DEFAULT '[]',
    code text NOT NULL DEFAULT '',
    reason text NOT NULL DEFAULT '',
    base_sha256 text,
    final_sha256 text,
    final_uri text,
    join_deadline_at timestamptz,
    pause_expires_at timestamptz,
    created_at timestamptz NOT NULL,
    started_at timestamptz,
    ended_at timestamptz,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (federation_id, tenant)
);
CREATE INDEX federations_newest ON federations (created_at, federation_id);
SELECT protect_tenants('federations');

CREATE TABLE rounds (
    tenant text NOT NULL,
    federation_id text NOT NULL,
    round_number integer NOT NULL,
    attempt integer NOT NULL,
    status text NOT NULL DEFAULT 'training',
    n_cohort integer NOT NULL DEFAULT 0,
    n_required integer NOT NULL DEFAULT 0,
    base_sha256 text,
    checkpoint_sha256 text,
    checkpoint_uri text,
    training json NOT NULL DEFAULT '{}',
    evaluation json NOT NULL DEFAULT '{}',
    evaluation_error text NOT NULL DEFAULT '',
    folded json NOT NULL DEFAULT '[]',
    train_seconds double precision,
    evaluate_seconds double precision,
    code text NOT NULL DEFAULT '',
    reason text NOT NULL DEFAULT '',
    started_at timestamptz,
    deadline_at timestamptz,
    evaluation_started_at timestamptz,
    finished_at timestamptz,
    PRIMARY KEY (federation_id, tenant, round_number, attempt)
);
SELECT protect_tenants('rounds');

CREATE TABLE round_updates (
    tenant text NOT NULL,
    federation_id text NOT NULL,
    round_number integer NOT NULL,
    attempt integer NOT NULL,
    exchange text NOT NULL,
    client_id text NOT NULL,
    status text NOT NULL,
    place integer,
    n_examples bigint,
    train_seconds double precision,
    metrics json,
    sha256 text,
    uri text,
    code text,
    detail text,
    asked_at timestamptz,
    reported_at timestamptz,
    decided_at timestamptz,
    PRIMARY KEY (federation_id, tenant, round_number, attempt, exchange, client_id)
);
SELECT protect_tenants('round_updates');

CREATE TABLE clients (
    tenant text NOT NULL,
    client_id text NOT NULL,
    status text NOT NULL,
    tags text[] NOT NULL DEFAULT '{}',
    reason text NOT NULL DEFAULT '',
    invited_at timestamptz,
    invite_expires_at timestamptz,
    enrolled_at timestamptz,
    certificate_expires_at timestamptz,
    revoked_at timestamptz,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, client_id)
);
SELECT protect_tenants('clients');

CREATE TABLE memberships (
    tenant text NOT NULL,
    federation_id text NOT NULL,
    client_id text NOT NULL,
    lease_id text NOT NULL,
    epoch integer NOT NULL,
    status text NOT NULL,
    dataset text,
    dataset_sha256 text,
    reason text NOT NULL DEFAULT '',
    issued_at timestamptz,
    joined_at timestamptz,
    ended_at timestamptz,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (federation_id, tenant, client_id)
);
SELECT protect_tenants('memberships');

CREATE TABLE artifacts (
    tenant text NOT NULL,
    federation_id text NOT NULL,
    round_number integer NOT NULL,
    attempt integer NOT NULL,
    exchange text NOT NULL,
    kind text NOT NULL,
    sha256 text NOT NULL,
    uri text NOT NULL,
    size bigint NOT NULL,
    parents text[] NOT NULL DEFAULT '{}',
    metrics json NOT NULL DEFAULT '{}',
    channels text[] NOT NULL DEFAULT '{}',
    revoked_at timestamptz,
    revoked_reason text NOT NULL DEFAULT '',
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (federation_id, tenant, round_number, attempt, exchange, kind)
);
CREATE INDEX artifacts_sha256 ON artifacts (sha256);
SELECT protect_tenants('artifacts');
