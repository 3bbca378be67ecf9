-- Tables of the garden, a small domain for the tests of the backbone.

CREATE TABLE beds (
    stream text PRIMARY KEY,
    tenant text NOT NULL,
    seed text,
    litres integer NOT NULL DEFAULT 0
);
SELECT protect_tenants('beds');

CREATE TABLE notes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream text NOT NULL,
    version integer NOT NULL,
    tenant text NOT NULL
);
SELECT protect_tenants('notes');
