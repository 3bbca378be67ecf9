-- When a round's aggregate was closed and its checkpoint was verified; rows of before have neither.
ALTER TABLE rounds ADD COLUMN aggregated_at timestamptz;
ALTER TABLE rounds ADD COLUMN recorded_at timestamptz;

-- Time travel folds a federation's events again into temporary tables.
DO $block$ BEGIN
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO ', current_database()) || ':app';
END $block$;
