-- The message half of version 1: its tables, and where messages go. "nb" stands for the schema that the URL names.
--
-- source   Queues, topics, subscriptions and inboxes. `heard`: until then somebody may be listening, so who makes messages ready
--          notifies. It is only moved on under a lock that excludes everybody who is just making some: nobody is missed. `seen`:
--          until then an inbox has a process. `key` is the path, or the hash of a long one.
-- message  One row for each message and each source that it lies in. `place` orders a source's messages (behind `rank`), a
--          claim is a `lease` of its own, and settles by it. `since`: when it was stored or, where it was delayed, became due.
-- known    Ids that were published with an id of their own, until their window ends.
--
-- state    0 ready    may be claimed, in the order (rank, place)
--          1 delayed  not available before `until`; blocks nobody. In a topic: for the groups of then
--          2 claimed  with a consumer until `until`
--          3 held     nacked with a delay in an ordered source; blocks its line until `until` and beyond
--          4 blocked  available, but an earlier one of its line is not settled
--          5 kept     of a topic, for subscriptions that begin at the earliest, until `until`
-- What is due is looked for as `until <= (SELECT clock_timestamp())`: compared with the function itself, which may change from row
-- to row, an index is read to its end.
-- `line` is a hash of the key, in ordered sources and while the message stands in its key's sequence (0, 2, 3, 4). Two keys
-- of one hash share a line, which costs nothing but time. All that changes lines locks the source for as long as that takes.

CREATE SEQUENCE nb.place AS bigint;
CREATE SEQUENCE nb.lease AS bigint;

CREATE TABLE nb.source (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    space integer NOT NULL,
    key text COLLATE "C" NOT NULL,
    path text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('queue', 'topic', 'subscription', 'inbox')),
    topic bigint,
    declared boolean NOT NULL,
    lease double precision NOT NULL CHECK (lease > 0),
    max_deliveries integer NOT NULL CHECK (max_deliveries >= 0),
    ordered boolean NOT NULL,
    priorities integer NOT NULL CHECK (priorities >= 0),
    heard timestamptz NOT NULL DEFAULT '-infinity',
    seen timestamptz,
    UNIQUE (space, key)
) WITH (fillfactor = 50);
CREATE INDEX source_topic ON nb.source (topic) WHERE topic IS NOT NULL;
CREATE INDEX source_seen ON nb.source (seen) WHERE seen IS NOT NULL;

CREATE TABLE nb.message (
    id bigint PRIMARY KEY DEFAULT nextval('nb.place'),
    source bigint NOT NULL,
    state smallint NOT NULL DEFAULT 0 CHECK (state BETWEEN 0 AND 5),
    rank integer NOT NULL DEFAULT 0,
    place bigint NOT NULL DEFAULT nextval('nb.place'),
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    until timestamptz,
    expires timestamptz,
    line bigint,
    attempt integer NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    lease bigint,
    name text NOT NULL,
    body bytea NOT NULL,
    headers text,
    key text,
    published double precision,
    priority integer NOT NULL DEFAULT 0,
    details text,
    CHECK ((until IS NOT NULL) = (state IN (1, 2, 3, 5)))
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX message_ready ON nb.message (source, rank, place) WHERE state = 0;
CREATE INDEX message_timed ON nb.message (source, until) WHERE until IS NOT NULL;
CREATE INDEX message_line ON nb.message (source, line, place) WHERE line IS NOT NULL;
CREATE INDEX message_expiring ON nb.message (source, expires) WHERE expires IS NOT NULL;

CREATE TABLE nb.known (
    source bigint NOT NULL,
    key text COLLATE "C" NOT NULL,
    until timestamptz NOT NULL,
    PRIMARY KEY (source, key)
);
CREATE INDEX known_until ON nb.known (until);

-- Where priorities stand in a source's order, smaller first. Who has declared nothing may yet declare levels, so all count.
CREATE FUNCTION nb.rank(of nb.source, priority integer) RETURNS integer LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN of.ordered OR of.path LIKE '%.dead' THEN 0
        WHEN of.declared THEN -least(priority, of.priorities) ELSE -priority END
$$;

-- Wake who listens, for `many` messages. The caller holds the source's row.
CREATE FUNCTION nb.ring(of nb.source, many bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF of.heard > clock_timestamp() AND many > 0 THEN
        PERFORM pg_notify('nb.m.' || of.id, many::text);
    END IF;
END
$$;

-- The source of that id, held as it is until the transaction ends: against its deletion, and alone where it is ordered.
CREATE FUNCTION nb.hold(in_id bigint) RETURNS nb.source LANGUAGE plpgsql AS $$
DECLARE found_row nb.source;
BEGIN
    SELECT * INTO found_row FROM nb.source s WHERE s.id = in_id;
    IF NOT found_row.ordered THEN
        SELECT * INTO found_row FROM nb.source s WHERE s.id = in_id FOR SHARE;
    END IF;
    IF found_row.ordered THEN -- also when somebody has declared it so in between
        SELECT * INTO found_row FROM nb.source s WHERE s.id = in_id FOR UPDATE;
    END IF;
    RETURN found_row;
END
$$;

-- Let the first message of a line go, unless it is out. The caller has the source alone.
CREATE FUNCTION nb.turn(in_source bigint, in_line bigint) RETURNS void LANGUAGE sql AS $$
    UPDATE nb.message m SET state = 0 WHERE m.state = 4 AND m.id = (
        SELECT f.id FROM nb.message f WHERE f.source = in_source AND f.line = in_line AND f.line IS NOT NULL
        ORDER BY f.source, f.line, f.place LIMIT 1
    )
$$;

-- Drop what has expired in a source; what is out is dropped when its lease ends.
CREATE FUNCTION nb.expire(of nb.source) RETURNS void LANGUAGE plpgsql AS $$
DECLARE each record;
BEGIN
    FOR each IN
        DELETE FROM nb.message m WHERE m.ctid = ANY (ARRAY(
            SELECT x.ctid FROM nb.message x WHERE x.source = of.id AND x.expires <= (SELECT clock_timestamp())
                AND x.expires IS NOT NULL AND x.state <> 2 FOR UPDATE SKIP LOCKED
        )) RETURNING m.line, m.state
    LOOP
        IF each.line IS NOT NULL AND each.state <> 4 THEN
            PERFORM nb.turn(of.id, each.line);
        END IF;
    END LOOP;
END
$$;

-- Let delayed messages arrive and ended leases go, in one source. The caller holds it with `hold`.
CREATE FUNCTION nb.tick_source(of nb.source) RETURNS void LANGUAGE plpgsql AS $$
DECLARE each record; in_line bigint;
BEGIN
    FOR each IN
        SELECT m.id, m.state, m.key, m.until FROM nb.message m WHERE m.source = of.id AND m.until <= (SELECT clock_timestamp())
            AND m.until IS NOT NULL ORDER BY m.source, m.until FOR UPDATE SKIP LOCKED
    LOOP
        IF each.state = 1 THEN -- it stands where it becomes available
            in_line := CASE WHEN of.ordered AND each.key IS NOT NULL THEN hashtextextended(each.key, 0) END;
            UPDATE nb.message m SET until = NULL, place = nextval('nb.place'), since = each.until, line = in_line, state = CASE
                WHEN in_line IS NOT NULL AND EXISTS (
                    SELECT FROM nb.message o WHERE o.source = of.id AND o.line = in_line AND o.line IS NOT NULL) THEN 4
                ELSE 0 END
                WHERE m.id = each.id;
        ELSE
            UPDATE nb.message m SET state = 0, until = NULL, lease = NULL WHERE m.id = each.id;
        END IF;
    END LOOP;
    PERFORM nb.expire(of);
END
$$;

-- One copy of a message for a source, behind all that are there.
CREATE FUNCTION nb.copy(of nb.source, what nb.message) RETURNS void LANGUAGE plpgsql AS $$
DECLARE in_line bigint := CASE WHEN of.ordered AND what.key IS NOT NULL THEN hashtextextended(what.key, 0) END;
BEGIN
    INSERT INTO nb.message (source, state, rank, expires, line, name, body, headers, key, published, priority, details)
    VALUES (
        of.id,
        CASE WHEN in_line IS NOT NULL AND EXISTS (
            SELECT FROM nb.message o WHERE o.source = of.id AND o.line = in_line AND o.line IS NOT NULL) THEN 4 ELSE 0 END,
        nb.rank(of, what.priority), what.expires, in_line,
        what.name, what.body, what.headers, what.key, what.published, what.priority, what.details);
END
$$;

-- Give the messages of a topic that are due to the groups that exist now. Kept ones whose time is over go.
CREATE FUNCTION nb.tick_topic(in_topic bigint, retention double precision) RETURNS void LANGUAGE plpgsql AS $$
DECLARE due nb.message[]; each nb.message; one bigint; grp nb.source;
BEGIN
    due := ARRAY(
        SELECT m FROM nb.message m WHERE m.source = in_topic AND m.until <= (SELECT clock_timestamp()) AND m.until IS NOT NULL
        ORDER BY m.source, m.until FOR UPDATE SKIP LOCKED
    );
    IF cardinality(due) = 0 THEN
        RETURN;
    END IF;
    FOR one IN SELECT s.id FROM nb.source s WHERE s.topic = in_topic AND s.topic IS NOT NULL ORDER BY s.id LOOP
        grp := nb.hold(one);
        CONTINUE WHEN grp.id IS NULL;
        IF grp.ordered THEN
            PERFORM nb.tick_source(grp);
        END IF;
        FOREACH each IN ARRAY due LOOP
            IF each.state = 1 THEN
                PERFORM nb.copy(grp, each);
            END IF;
        END LOOP;
        PERFORM nb.ring(grp, cardinality(due));
    END LOOP;
    IF retention > 0 THEN
        UPDATE nb.message m SET state = 5, until = clock_timestamp() + make_interval(secs => retention)
            FROM unnest(due) d WHERE m.id = d.id AND d.state = 1;
    END IF;
    DELETE FROM nb.message m USING unnest(due) d WHERE m.id = d.id AND (retention <= 0 OR d.state = 5);
END
$$;

-- Do what is due in a source: first in its topic, then in itself. Nothing is locked where nothing is due.
CREATE FUNCTION nb.tick(of nb.source, retention double precision) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF of.kind = 'topic' OR of.topic IS NOT NULL THEN
        PERFORM nb.tick_topic(coalesce(of.topic, of.id), retention);
    END IF;
    IF of.kind <> 'topic' AND EXISTS (
        SELECT FROM nb.message m WHERE m.source = of.id AND m.until <= (SELECT clock_timestamp()) AND m.until IS NOT NULL
        UNION ALL
        SELECT FROM nb.message m WHERE m.source = of.id AND m.expires <= (SELECT clock_timestamp()) AND m.expires IS NOT NULL
            AND m.state <> 2
    ) THEN
        of := nb.hold(of.id);
        IF of.id IS NOT NULL THEN
            PERFORM nb.tick_source(of);
        END IF;
    END IF;
END
$$;

-- The source of that key. NULL where it is not there and is not made.
CREATE FUNCTION nb.find(in_space integer, in_key text) RETURNS nb.source LANGUAGE sql STABLE AS $$
    SELECT s FROM nb.source s WHERE s.space = in_space AND s.key = in_key
$$;

-- The same, made with those properties where it is not there. `parent` is the topic of a subscription.
CREATE FUNCTION nb.make(
    in_space integer, in_key text, in_path text, in_kind text, in_parent bigint, in_declared boolean, in_lease double precision,
    in_max integer, in_ordered boolean, in_priorities integer
) RETURNS nb.source LANGUAGE plpgsql AS $$
DECLARE found_row nb.source;
BEGIN
    LOOP
        SELECT * INTO found_row FROM nb.source s WHERE s.space = in_space AND s.key = in_key;
        EXIT WHEN FOUND;
        INSERT INTO nb.source
            (space, key, path, kind, topic, declared, lease, max_deliveries, ordered, priorities, seen)
        VALUES (in_space, in_key, in_path, in_kind, in_parent, in_declared, in_lease, in_max, in_ordered, in_priorities,
            CASE WHEN in_kind = 'inbox' THEN clock_timestamp() + interval '1 minute' END)
        ON CONFLICT DO NOTHING;
    END LOOP;
    RETURN found_row;
END
$$;
