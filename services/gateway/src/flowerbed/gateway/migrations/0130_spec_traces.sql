-- Federations whose specs name a collector of their own, and up to where the spans that events end
-- have been exported to it. Not a projection: the gateway's own memory. A row goes when all is there.
CREATE TABLE spec_traces (
    tenant text NOT NULL,
    federation_id text NOT NULL,
    telemetry json NOT NULL,
    position bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (federation_id, tenant)
);
SELECT protect_tenants('spec_traces');
