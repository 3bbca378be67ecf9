-- Which release's facts may be recorded here (`release.py`). Without a row, those of the first.
CREATE TABLE release (
    number integer NOT NULL,
    is_one boolean PRIMARY KEY DEFAULT true CHECK (is_one),
    raised_at timestamptz NOT NULL DEFAULT now()
);
REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON release FROM :app;
