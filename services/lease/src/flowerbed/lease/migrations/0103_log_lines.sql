-- What ClientApps wrote at the sites, as far as the sites hand it out. Not history: the newest lines
-- of each lease, for a while. `number` is the line's own in its agent's run, `position` is ours.
CREATE TABLE log_lines (
    position bigint GENERATED ALWAYS AS IDENTITY,
    tenant text NOT NULL,
    federation_id text NOT NULL,
    client_id text NOT NULL,
    lease_id text NOT NULL,
    run text NOT NULL,
    number bigint NOT NULL,
    at timestamptz NOT NULL,
    kind text NOT NULL,
    text text NOT NULL,
    PRIMARY KEY (lease_id, run, number)
);
CREATE INDEX log_lines_lease ON log_lines (lease_id, position);
CREATE INDEX log_lines_federation ON log_lines (federation_id, position);
CREATE INDEX log_lines_at ON log_lines (at);
SELECT protect_tenants('log_lines');
