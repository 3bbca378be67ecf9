-- The event store, which is also the outbox, and what consumers remember.
-- :app and :reader stand for the service's two roles; the owner runs this.

GRANT USAGE ON SCHEMA public TO :app, :reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :app;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO :reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO :app;

-- Every table with a column `tenant` is given to this. Both roles are subject to it, and so is
-- the owner (FORCE), who may read everything to rebuild projections but writes one tenant at a time.
CREATE FUNCTION protect_tenants(name text) RETURNS void LANGUAGE plpgsql AS $function$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', name::regclass);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', name::regclass);
    EXECUTE format(
        'CREATE POLICY one_tenant ON %s TO :app, CURRENT_USER'
        ' USING (tenant = current_setting(''flowerbed.tenant'', true))'
        ' WITH CHECK (tenant = current_setting(''flowerbed.tenant'', true))', name::regclass);
    EXECUTE format(
        'CREATE POLICY all_tenants ON %s FOR SELECT TO :reader, CURRENT_USER USING (true)',
        name::regclass);
END
$function$;
REVOKE EXECUTE ON FUNCTION protect_tenants(text) FROM PUBLIC;

CREATE TABLE events (
    gpos bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    stream text NOT NULL,
    version integer NOT NULL CHECK (version > 0),
    id uuid NOT NULL,
    type text NOT NULL,
    schema_version integer NOT NULL,
    tenant text NOT NULL,
    data json NOT NULL,
    meta json NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (stream, version)
);
CREATE INDEX events_xid_gpos ON events (xid, gpos);
REVOKE UPDATE, DELETE, TRUNCATE ON events FROM :app;
SELECT protect_tenants('events');

-- The last version of each stream that a consumer has applied.
CREATE TABLE cursors (
    consumer text NOT NULL,
    stream text NOT NULL,
    version integer NOT NULL,
    tenant text NOT NULL,
    PRIMARY KEY (consumer, stream)
) WITH (fillfactor = 70);
SELECT protect_tenants('cursors');

-- Events that a consumer could not handle, and those of the same lane behind them.
CREATE TABLE dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer text NOT NULL,
    lane text NOT NULL,
    tenant text NOT NULL,
    stream text NOT NULL,
    version integer NOT NULL,
    event_id text NOT NULL,
    subject text NOT NULL,
    headers json NOT NULL,
    data bytea NOT NULL,
    error text NOT NULL,
    attempts integer NOT NULL,
    parked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (consumer, stream, version)
);
CREATE INDEX dead_letters_lane ON dead_letters (consumer, lane, id);
SELECT protect_tenants('dead_letters');

-- Where the relay was, for when the last message has aged out of the JetStream stream.
CREATE TABLE relay_marks (
    jetstream text PRIMARY KEY,
    mark text NOT NULL,
    sequence bigint NOT NULL,
    marked_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
