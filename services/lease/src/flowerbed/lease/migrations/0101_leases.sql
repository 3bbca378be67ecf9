-- Clients and leases (projections of own events), and what others said that work is made of.

CREATE TABLE clients (
    client_id text PRIMARY KEY,
    tenant text NOT NULL,
    status text NOT NULL,
    tags text[] NOT NULL,
    public_key_sha256 text,
    certificate_expires_at timestamptz
);
SELECT protect_tenants('clients');

CREATE TABLE leases (
    lease_id text PRIMARY KEY,
    tenant text NOT NULL,
    federation_id text NOT NULL,
    client_id text NOT NULL,
    epoch integer NOT NULL,
    status text NOT NULL,
    ttl_seconds integer NOT NULL,
    dataset_label text,
    dataset_sha256 text,
    since timestamptz NOT NULL
);
CREATE INDEX leases_client ON leases (client_id);
CREATE INDEX leases_federation ON leases (federation_id);
SELECT protect_tenants('leases');

-- The last sign of life under a lease. Not history: it is overwritten.
CREATE TABLE heartbeats (
    lease_id text PRIMARY KEY,
    tenant text NOT NULL,
    seen_at timestamptz NOT NULL
);
SELECT protect_tenants('heartbeats');

-- Open federations, from fl.federation.*; the spec as it was accepted.
CREATE TABLE federations (
    federation_id text PRIMARY KEY,
    tenant text NOT NULL,
    spec json NOT NULL,
    code_hash text NOT NULL,
    tags text[] NOT NULL
);
SELECT protect_tenants('federations');

-- Open exchanges, from fl.round.{started,evaluation_started}, and their work: a row a member.
CREATE TABLE exchanges (
    federation_id text PRIMARY KEY,
    tenant text NOT NULL,
    kind text NOT NULL,
    data json NOT NULL,
    traceparent text
);
SELECT protect_tenants('exchanges');

CREATE TABLE work (
    lease_id text PRIMARY KEY,
    tenant text NOT NULL,
    federation_id text NOT NULL,
    work_id text NOT NULL,
    place integer NOT NULL
);
CREATE INDEX work_federation ON work (federation_id);
SELECT protect_tenants('work');
