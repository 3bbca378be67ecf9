-- Late updates: an answer belongs to a piece of work, which may be of an earlier exchange than the
-- one that answers it. What was there before has its work id from its stream and its client.

ALTER TABLE federations ADD COLUMN policy json; -- as changed by a person; else as created

-- `cohort` grows by each client that takes another's place; `replaced` holds the facts in order.
ALTER TABLE exchanges
    ADD COLUMN round_number integer
        GENERATED ALWAYS AS ((started->>'round_number')::integer) STORED,
    ADD COLUMN attempt integer GENERATED ALWAYS AS ((started->>'attempt')::integer) STORED,
    ADD COLUMN counts_late boolean
        GENERATED ALWAYS AS (started->>'work_until' IS NOT NULL) STORED,
    ADD COLUMN owed text[] NOT NULL DEFAULT '{}',
    ADD COLUMN replaced jsonb NOT NULL DEFAULT '[]',
    ADD COLUMN grace_seconds double precision;

ALTER TABLE submissions
    ADD COLUMN work_id text GENERATED ALWAYS AS (answer->>'work_id') STORED;
CREATE INDEX submissions_work ON submissions (work_id);

-- `owed_work_id`: of an earlier exchange; without it, the work is the exchange's own.
ALTER TABLE answers
    ADD COLUMN owed_work_id text,
    ADD COLUMN work_id text NOT NULL GENERATED ALWAYS AS (
        coalesce(
            owed_work_id,
            regexp_replace(
                stream, '^exchange-(.*)-([0-9]+)-([0-9]+)-([a-z]+)$', '\1.\2.\3.\4.'
            ) || client_id
        )
    ) STORED;
CREATE INDEX answers_work ON answers (work_id);
