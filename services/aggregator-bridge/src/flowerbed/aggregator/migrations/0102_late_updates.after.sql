-- A client may have two answers in one exchange: that to its own work, and that to owed work.
ALTER TABLE answers DROP CONSTRAINT answers_pkey, ADD PRIMARY KEY (stream, work_id);
