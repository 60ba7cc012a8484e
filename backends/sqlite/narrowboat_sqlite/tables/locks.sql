-- The lock half of a Narrowboat database.
--
-- lock_counter  One row: where fencing tokens come from. Each grant takes `next`. With durability=normal only tokens below
--               `reserved` are given, and `reserved` is raised by a commit that is synced to the disk: a loss of power may
--               take back `next`, never `reserved`. `boot` is the boot that wrote last; a process that finds another one goes
--               on from `reserved`.
-- lock_holder   One row for each lease, `token` unique in the file. `ends` is a time of the clock named in `clock`, and
--               means nothing by another one: under a foreign clock, a lease ends when `token` and `renewals` have stood
--               still for `ttl` seconds by the observer's own clock. `acquired_at` is wall-clock time, for people.
-- lock_waiter   One row for each owner that waits, served by `seq`. Each of its attempts raises `looks` and moves `deadline`,
--               which is compared in the same two ways; a waiter past it is passed over and deleted.
-- lock_evicted  Tokens broken by `evict` whose holders do not know it yet. Deleted when they do; 1,000 are kept at most.
--
-- A name without holder and waiter has no row. Namespaces (`prefix`) share nothing but the counter.

CREATE TABLE IF NOT EXISTS lock_counter (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    next INTEGER NOT NULL,
    reserved INTEGER NOT NULL,
    boot TEXT NOT NULL
);

INSERT INTO lock_counter (id, next, reserved, boot) SELECT 1, 1, 1, '' WHERE NOT EXISTS (SELECT 1 FROM lock_counter);

CREATE TABLE IF NOT EXISTS lock_holder (
    prefix TEXT NOT NULL,
    name TEXT NOT NULL,
    token INTEGER NOT NULL,
    owner TEXT NOT NULL,
    mode TEXT NOT NULL,
    size INTEGER,
    ttl REAL NOT NULL,
    ends REAL NOT NULL,
    clock TEXT NOT NULL,
    renewals INTEGER NOT NULL,
    label TEXT NOT NULL,
    acquired_at REAL NOT NULL,
    PRIMARY KEY (prefix, name, token)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS lock_waiter (
    prefix TEXT NOT NULL,
    name TEXT NOT NULL,
    seq INTEGER NOT NULL,
    owner TEXT NOT NULL,
    mode TEXT NOT NULL,
    size INTEGER,
    deadline REAL NOT NULL,
    clock TEXT NOT NULL,
    looks INTEGER NOT NULL,
    PRIMARY KEY (prefix, name, seq)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS lock_evicted (
    token INTEGER PRIMARY KEY
);
