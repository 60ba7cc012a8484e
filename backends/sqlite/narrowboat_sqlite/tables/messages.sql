-- Queues, topics, inboxes and their messages. One statement ends at each semicolon at a line's end.
--
-- A published message is one row of `message`, whatever number of groups it goes to, and one row of `delivery` for each
-- source that it lies in. `message.copies` counts the rows that refer to it (of `delivery` and of `kept`); the last one to
-- go takes it along. After everything is settled both tables are empty.
--
-- Times. `until` and `expires` are readings of the clock whose row in `message_clock` stands beside them, and are compared
-- with that clock only. Under a foreign clock a delay, a ttl or an inbox ends by the wall clock (reading + `wall`, as that
-- clock's processes last saw it), and a lease ends when its row (token, until) has not changed for one full lease by the
-- observer's own clock. `place` is comparable between all clocks: reading + `base`, which is fixed at the clock's
-- first appearance, so that a wall clock that is set reorders nothing.
--
-- state of a delivery   0 ready      may be claimed, in the order (rank, place, message)
--                       1 delayed    not available before `until`; blocks nobody; of a topic: for the groups of then
--                       2 claimed    with a consumer until `until`; `token` is its claim's alone
--                       3 held       nacked with a delay in an ordered source; blocks its key until `until` and beyond
--                       4 blocked    available, but an earlier one of its key is not settled
-- `key` is set only in ordered sources and while the message stands in its key's sequence (0, 2, 3, 4).
-- Each state is found by its own small index, and a claim is a range of the first.

CREATE TABLE IF NOT EXISTS message_clock (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    base REAL NOT NULL,
    wall REAL NOT NULL,
    seen REAL NOT NULL
);

CREATE TABLE IF NOT EXISTS source (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    space TEXT NOT NULL,
    path TEXT NOT NULL,
    kind TEXT NOT NULL,
    topic INTEGER,
    declared INTEGER NOT NULL,
    lease REAL NOT NULL,
    max_deliveries INTEGER NOT NULL,
    ordered INTEGER NOT NULL,
    priorities INTEGER NOT NULL,
    seen REAL,
    clock INTEGER,
    UNIQUE (space, path)
);

CREATE INDEX IF NOT EXISTS source_topic ON source (topic) WHERE topic IS NOT NULL;

CREATE INDEX IF NOT EXISTS source_seen ON source (seen) WHERE seen IS NOT NULL;

CREATE TABLE IF NOT EXISTS message (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    body BLOB NOT NULL,
    headers TEXT,
    key TEXT,
    published REAL,
    priority INTEGER NOT NULL,
    details TEXT,
    copies INTEGER NOT NULL
);

CREATE TABLE IF NOT EXISTS delivery (
    id INTEGER PRIMARY KEY,
    source INTEGER NOT NULL,
    message INTEGER NOT NULL,
    state INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    place REAL NOT NULL,
    until REAL,
    clock INTEGER,
    key TEXT,
    expires REAL,
    origin INTEGER,
    attempt INTEGER NOT NULL DEFAULT 0,
    token INTEGER,
    span REAL
);

CREATE INDEX IF NOT EXISTS delivery_ready ON delivery (source, rank, place, message) WHERE state = 0;

CREATE INDEX IF NOT EXISTS delivery_timed ON delivery (source, clock, until) WHERE until IS NOT NULL;

CREATE INDEX IF NOT EXISTS delivery_key ON delivery (source, key, place, message) WHERE key IS NOT NULL;

CREATE INDEX IF NOT EXISTS delivery_expiring ON delivery (origin, expires) WHERE expires IS NOT NULL;

-- The index of an earlier Narrowboat, which has a list in place of the comparisons below. SQLite looks into the list whenever a
-- row changes: a tenth of what it takes to claim and settle a message. An older program makes it again, which does no harm.
DROP INDEX IF EXISTS delivery_odd;

CREATE INDEX IF NOT EXISTS delivery_strange ON delivery (source)
    WHERE state <> 0 AND state <> 1 AND state <> 2 AND state <> 3 AND state <> 4;

CREATE TABLE IF NOT EXISTS kept (
    topic INTEGER NOT NULL,
    message INTEGER NOT NULL,
    place REAL NOT NULL,
    until REAL NOT NULL,
    clock INTEGER NOT NULL,
    expires REAL,
    origin INTEGER,
    PRIMARY KEY (topic, message)
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS kept_until ON kept (clock, until);

CREATE TABLE IF NOT EXISTS known_id (
    source INTEGER NOT NULL,
    name TEXT NOT NULL,
    until REAL NOT NULL,
    clock INTEGER NOT NULL,
    PRIMARY KEY (source, name)
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS known_id_until ON known_id (clock, until);
