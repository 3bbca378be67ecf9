-- What an update had in bytes, the form in which it travelled, what it would have had in full, and
-- what the form cost, as its site says; form and what follows are null of an update sent in full.
ALTER TABLE round_updates
    ADD COLUMN size bigint,
    ADD COLUMN form text,
    ADD COLUMN full_size bigint,
    ADD COLUMN form_error double precision;
