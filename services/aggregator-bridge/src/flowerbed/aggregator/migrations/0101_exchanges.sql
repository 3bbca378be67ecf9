-- What the bridge knows of federations, exchanges and answers. The first three are filled from
-- other services' facts, in whatever order they arrive; the last two from the bridge's own.

CREATE TABLE federations (
    federation_id text PRIMARY KEY,
    tenant text NOT NULL,
    created json NOT NULL,
    is_ended boolean NOT NULL DEFAULT false
);
CREATE INDEX federations_not_ended ON federations (federation_id) WHERE NOT is_ended;
SELECT protect_tenants('federations');

CREATE TABLE exchanges (
    stream text PRIMARY KEY,
    tenant text NOT NULL,
    federation_id text NOT NULL,
    type text NOT NULL,
    started json NOT NULL,
    cohort text[] NOT NULL,
    event_id uuid NOT NULL,
    traceparent text
);
CREATE INDEX exchanges_federation ON exchanges (federation_id);
SELECT protect_tenants('exchanges');

CREATE TABLE submissions (
    stream text NOT NULL,
    client_id text NOT NULL,
    tenant text NOT NULL,
    type text NOT NULL,
    answer json NOT NULL,
    event_id uuid NOT NULL,
    traceparent text,
    submitted_at timestamptz NOT NULL,
    PRIMARY KEY (stream, client_id)
);
SELECT protect_tenants('submissions');

CREATE TABLE answers (
    stream text NOT NULL,
    client_id text NOT NULL,
    tenant text NOT NULL,
    code text NOT NULL,
    PRIMARY KEY (stream, client_id)
);
SELECT protect_tenants('answers');

CREATE TABLE outcomes (
    stream text PRIMARY KEY,
    tenant text NOT NULL,
    federation_id text NOT NULL,
    round_number integer NOT NULL,
    attempt integer NOT NULL,
    exchange text NOT NULL,
    code text NOT NULL,
    ended_at timestamptz NOT NULL
);
CREATE INDEX outcomes_round ON outcomes (federation_id, round_number);
SELECT protect_tenants('outcomes');
