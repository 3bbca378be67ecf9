-- Counts of one service stand beside facts of another, which may be heard first.
-- Where an app's whole ServerApp runs, what stands in `rounds` counts its exchanges.
ALTER TABLE federations ADD COLUMN is_whole boolean NOT NULL DEFAULT false;
-- How many updates the orchestrator was told are in the fold; null before it is.
ALTER TABLE rounds ADD COLUMN n_updates integer;
