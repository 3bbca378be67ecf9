-- Over a SuperLink: the key of a lease's SuperNode, and when that last had no work.
ALTER TABLE leases ADD COLUMN node_key text;
ALTER TABLE heartbeats ADD COLUMN idle_at timestamptz;
