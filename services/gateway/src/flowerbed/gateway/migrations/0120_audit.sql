-- Every request that would change something, whoever made it and whatever became of it. Not a
-- projection: the gateway's own memory. A tenant of '' is none: nobody was let in, or all are meant.
CREATE TABLE audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL,
    actor text NOT NULL,
    issuer text NOT NULL,
    role text NOT NULL,
    tenant text NOT NULL,
    address text NOT NULL,
    method text NOT NULL,
    path text NOT NULL,
    action text NOT NULL,
    status integer NOT NULL,
    code text NOT NULL,
    federation_id text
);
CREATE INDEX audit_tenant ON audit (tenant, id);
CREATE INDEX audit_federation ON audit (federation_id, id) WHERE federation_id IS NOT NULL;
REVOKE UPDATE, DELETE, TRUNCATE ON audit FROM :app;
SELECT protect_tenants('audit');
