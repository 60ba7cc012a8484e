-- What both halves share. "nb" stands for the schema that the URL names.
--
-- version  What was done to the schema; the largest number is what it is now.
-- space    The namespaces (`prefix`) and their numbers.

CREATE TABLE nb.version (
    number integer PRIMARY KEY,
    since timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE nb.space (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    prefix text COLLATE "C" NOT NULL UNIQUE
);

