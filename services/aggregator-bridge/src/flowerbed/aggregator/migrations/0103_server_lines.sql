-- What whole ServerApps wrote. Not history: the newest lines of each.
CREATE TABLE server_lines (
    position bigint GENERATED ALWAYS AS IDENTITY,
    tenant text NOT NULL,
    federation_id text NOT NULL,
    at timestamptz NOT NULL,
    kind text NOT NULL,
    text text NOT NULL,
    PRIMARY KEY (position)
);
CREATE INDEX server_lines_federation ON server_lines (federation_id, position);
SELECT protect_tenants('server_lines');
