-- Objects that the bridge says it has stored and nobody has read back yet. A row goes when its
-- objects are recorded, or stays with an error when they are not what they should be.
CREATE TABLE verifications (
    event_id uuid PRIMARY KEY,
    tenant text NOT NULL,
    federation_id text NOT NULL,
    completed json NOT NULL,
    traceparent text,
    heard_at timestamptz NOT NULL,
    n_missing integer NOT NULL DEFAULT 0,
    error text
);
CREATE INDEX verifications_to_do ON verifications (heard_at) WHERE error IS NULL;
SELECT protect_tenants('verifications');

CREATE TABLE artifacts (
    federation_id text NOT NULL,
    round_number integer NOT NULL,
    attempt integer NOT NULL,
    exchange text NOT NULL,
    kind text NOT NULL,
    tenant text NOT NULL,
    sha256 text NOT NULL,
    uri text NOT NULL,
    size bigint NOT NULL,
    parents text[] NOT NULL,
    n_updates integer NOT NULL,
    metrics json NOT NULL,
    recorded_at timestamptz NOT NULL,
    revoked_at timestamptz,
    revoked_reason text NOT NULL DEFAULT '',
    PRIMARY KEY (federation_id, round_number, attempt, exchange, kind)
);
CREATE INDEX artifacts_sha256 ON artifacts (sha256);
SELECT protect_tenants('artifacts');

CREATE TABLE channels (
    federation_id text NOT NULL,
    channel text NOT NULL,
    tenant text NOT NULL,
    sha256 text NOT NULL,
    promoted_at timestamptz NOT NULL,
    PRIMARY KEY (federation_id, channel)
);
SELECT protect_tenants('channels');
