-- When the newest messages of a whole ServerApp run out, from fl.message.pushed.
CREATE TABLE heard (
    federation_id text PRIMARY KEY,
    tenant text NOT NULL,
    until timestamptz NOT NULL
);
SELECT protect_tenants('heard');
