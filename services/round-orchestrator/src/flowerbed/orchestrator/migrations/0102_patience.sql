-- How long after an exchange's deadline the aggregator is waited for: it follows from the policy.
-- A federation of before keeps what it was told. A look that is too early changes nothing.
ALTER TABLE deadlines ADD COLUMN patience interval NOT NULL DEFAULT interval '5 minutes';
