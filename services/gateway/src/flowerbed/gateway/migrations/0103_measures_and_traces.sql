-- What a site measured beside its work; null is not measured, and joules_reason says why.
ALTER TABLE round_updates
    ADD COLUMN download_seconds double precision,
    ADD COLUMN upload_seconds double precision,
    ADD COLUMN n_tokens bigint,
    ADD COLUMN joules double precision,
    ADD COLUMN joules_reason text;

-- Up to where the spans that events end have been exported.
CREATE TABLE trace_cursor (
    is_one boolean PRIMARY KEY DEFAULT true CHECK (is_one),
    position bigint NOT NULL
);
