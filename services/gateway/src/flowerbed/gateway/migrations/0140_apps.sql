-- Flower apps of people's own: a bundle that was pushed in a tenant.
CREATE TABLE apps (
    tenant text NOT NULL,
    sha256 text NOT NULL,
    name text NOT NULL,
    version text NOT NULL,
    publisher text NOT NULL,
    size bigint NOT NULL,
    uri text NOT NULL,
    pushed_by text NOT NULL,
    pushed_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, sha256)
);
SELECT protect_tenants('apps');
