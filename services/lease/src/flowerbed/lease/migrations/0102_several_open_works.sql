-- A client may still train for an earlier round while later exchanges run: work and exchanges are
-- kept by their own identities. A work id begins with that of its exchange:
-- federation.round.attempt.exchange.client. Both are generated, so that a replica of the release
-- before, which does not name them, may go on writing.
ALTER TABLE exchanges ADD COLUMN exchange_id text GENERATED ALWAYS AS (
    federation_id || '.' || (data ->> 'round_number') || '.' || (data ->> 'attempt') || '.' || kind
) STORED;
CREATE INDEX exchanges_federation ON exchanges (federation_id);

ALTER TABLE work ADD COLUMN exchange_id text GENERATED ALWAYS AS (
    split_part(work_id, '.', 1) || '.' || split_part(work_id, '.', 2) || '.'
    || split_part(work_id, '.', 3) || '.' || split_part(work_id, '.', 4)
) STORED;
