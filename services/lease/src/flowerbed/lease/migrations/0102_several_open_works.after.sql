-- More than one exchange a federation, and more than one piece of work a lease.
ALTER TABLE exchanges DROP CONSTRAINT exchanges_pkey, ADD PRIMARY KEY (exchange_id);
ALTER TABLE work DROP CONSTRAINT work_pkey, ADD PRIMARY KEY (lease_id, work_id);
