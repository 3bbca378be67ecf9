-- Where an app's whole ServerApp runs, what stands in `rounds` counts its exchanges: their events
-- and the federation's are of two services, so the federation's row cannot count them.
ALTER TABLE federations ADD COLUMN is_whole boolean NOT NULL DEFAULT false;
