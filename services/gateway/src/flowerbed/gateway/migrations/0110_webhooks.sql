-- Where events are sent to, and how far each receiver has come. Not a projection: the gateway's own
-- memory. The tenant '*' is that of webhooks over all tenants; no tenant can have that name.
CREATE TABLE webhooks (
    tenant text NOT NULL,
    webhook_id text NOT NULL,
    url text NOT NULL,
    secret text NOT NULL,
    federation_id text,
    types text[],
    status text NOT NULL DEFAULT 'active',
    reason text NOT NULL DEFAULT '',
    position bigint NOT NULL,
    revision bigint NOT NULL DEFAULT 1,
    n_failures integer NOT NULL DEFAULT 0,
    failing_since timestamptz,
    last_error text NOT NULL DEFAULT '',
    next_attempt_at timestamptz,
    delivered_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL,
    PRIMARY KEY (webhook_id, tenant)
);
SELECT protect_tenants('webhooks');
