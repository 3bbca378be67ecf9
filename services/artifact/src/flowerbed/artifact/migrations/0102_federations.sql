-- What the specs of federations say of telemetry, from fl.federation.created; null is nothing.
CREATE TABLE federations (
    federation_id text PRIMARY KEY,
    tenant text NOT NULL,
    telemetry json
);
SELECT protect_tenants('federations');
