-- The message half of version 1: what producers and consumers call. "nb" stands for the schema that the URL names.
-- Texts that end a call for a source: 'missing' (it is not there), 'taken' (it is something else), 'differs'.

-- Find or make what a consumer declares. Its stored properties are told with 'differs', what it is with 'taken'.
CREATE FUNCTION nb.declare(
    in_space integer, in_key text, in_path text, in_kind text, in_topic text, in_topic_path text, in_lease double precision,
    in_max integer, in_ordered boolean, in_priorities integer, make boolean, earliest boolean, retention double precision
) RETURNS TABLE (
    verdict text, id bigint, kind text, path text, lease double precision, max_deliveries integer, ordered boolean,
    priorities integer
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE found_row nb.source; parent nb.source; fresh boolean := false;
BEGIN
    found_row := nb.find(in_space, in_key);
    IF found_row.id IS NULL AND in_topic IS NOT NULL THEN
        parent := nb.find(in_space, in_topic);
        IF parent.id IS NOT NULL AND parent.kind <> 'topic' THEN
            RETURN QUERY SELECT 'taken', NULL::bigint, parent.kind, parent.path, 0.0::double precision, 0, false, 0;
            RETURN;
        END IF;
    END IF;
    IF found_row.id IS NULL THEN
        IF NOT make THEN
            RETURN QUERY SELECT 'missing', NULL::bigint, in_kind, in_path, 0.0::double precision, 0, false, 0;
            RETURN;
        END IF;
        IF in_topic IS NOT NULL THEN
            IF parent.id IS NULL THEN
                parent := nb.make(in_space, in_topic, in_topic_path, 'topic', NULL, true, 30, 5, false, 0);
            END IF;
            PERFORM nb.tick_topic(parent.id, retention); -- a new group does not get messages that were due before it
        END IF;
        fresh := true;
        found_row := nb.make(
            in_space, in_key, in_path, in_kind, parent.id, true, in_lease, in_max, in_ordered, in_priorities);
    END IF;
    IF found_row.kind <> in_kind THEN
        RETURN QUERY SELECT 'taken', NULL::bigint, found_row.kind, found_row.path, 0.0::double precision, 0, false, 0;
        RETURN;
    END IF;
    IF in_kind <> 'topic' AND NOT found_row.declared THEN
        found_row := nb.adopt(found_row.id, in_lease, in_max, in_ordered, in_priorities);
    END IF;
    IF fresh AND earliest AND in_topic IS NOT NULL THEN
        PERFORM nb.replay(found_row, parent.id);
    END IF;
    RETURN QUERY SELECT CASE WHEN in_kind <> 'topic' AND (found_row.lease, found_row.max_deliveries, found_row.ordered,
            found_row.priorities) IS DISTINCT FROM (in_lease, in_max, in_ordered, in_priorities) THEN 'differs' ELSE '' END,
        found_row.id, found_row.kind, found_row.path, found_row.lease, found_row.max_deliveries, found_row.ordered,
        found_row.priorities;
END
$$;

-- Begin with what the topic has kept.
CREATE FUNCTION nb.replay(of nb.source, in_topic bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE each nb.message;
BEGIN
    of := nb.hold(of.id);
    FOR each IN
        SELECT * FROM nb.message m WHERE m.source = in_topic AND m.state = 5 AND m.until > clock_timestamp()
            AND (m.expires IS NULL OR m.expires > clock_timestamp()) ORDER BY m.place
    LOOP
        PERFORM nb.copy(of, each);
    END LOOP;
END
$$;

-- Take the properties of the first consumer; what was published before is sorted by them.
CREATE FUNCTION nb.adopt(in_id bigint, in_lease double precision, in_max integer, in_ordered boolean, in_priorities integer)
RETURNS nb.source LANGUAGE plpgsql AS $$
DECLARE of nb.source;
BEGIN
    SELECT * INTO of FROM nb.source s WHERE s.id = in_id FOR UPDATE;
    IF of.id IS NULL OR of.declared THEN
        RETURN of;
    END IF;
    PERFORM nb.tick_source(of);
    UPDATE nb.source s SET
        declared = true, lease = in_lease, max_deliveries = in_max, ordered = in_ordered, priorities = in_priorities
        WHERE s.id = in_id RETURNING * INTO of;
    IF NOT of.ordered THEN -- nearly always nothing changes, however many wait
        UPDATE nb.message m SET rank = nb.rank(of, m.priority)
            WHERE m.source = in_id AND m.state = 0 AND m.rank <> nb.rank(of, m.priority);
        UPDATE nb.message m SET rank = nb.rank(of, m.priority)
            WHERE m.source = in_id AND m.state = 1 AND m.until IS NOT NULL AND m.rank <> nb.rank(of, m.priority);
        RETURN of;
    END IF;
    UPDATE nb.message m SET rank = nb.rank(of, m.priority), line = f.line,
        state = CASE WHEN f.line IS NOT NULL AND f.nth > 1 THEN 4 ELSE m.state END
        FROM (
            SELECT x.id, g.line, row_number() OVER (PARTITION BY g.line ORDER BY x.place) AS nth FROM nb.message x,
                LATERAL (SELECT CASE WHEN of.ordered AND x.key IS NOT NULL THEN hashtextextended(x.key, 0) END) g(line)
            WHERE x.source = in_id AND x.state = 0
        ) f WHERE m.id = f.id;
    UPDATE nb.message m SET rank = 0 WHERE m.source = in_id AND m.state = 1 AND m.until IS NOT NULL;
    RETURN of;
END
$$;

-- The source that messages are sent to, held; made where it is not there. `kind` is what it is, NULL that there is none.
CREATE FUNCTION nb.aim(
    in_space integer, in_key text, in_path text, in_kind text, in_topic text, in_topic_path text, in_max integer, make boolean
) RETURNS nb.source LANGUAGE plpgsql AS $$
DECLARE of nb.source; parent nb.source;
BEGIN
    LOOP
        of := nb.find(in_space, in_key);
        IF of.id IS NULL THEN
            IF in_kind = 'inbox' OR NOT make THEN
                RETURN NULL;
            END IF;
            IF in_topic IS NOT NULL THEN
                parent := nb.make(in_space, in_topic, in_topic_path, 'topic', NULL, true, 30, 5, false, 0);
                IF parent.kind <> 'topic' THEN
                    RETURN parent;
                END IF;
            END IF;
            of := nb.make(in_space, in_key, in_path, in_kind, parent.id, in_kind = 'topic', 30, in_max, false, 0);
        END IF;
        IF of.kind <> in_kind THEN
            RETURN of;
        END IF;
        of := nb.hold(of.id);
        EXIT WHEN of.id IS NOT NULL; -- it may have been deleted in between
    END LOOP;
    RETURN of;
END
$$;

-- Store what was published now, or later, in one source. `skip` are the numbers of those that are not stored.
CREATE FUNCTION nb.store(of nb.source, parts jsonb, bodies bytea[], skip integer[], in_state smallint, keep double precision)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE moment timestamptz := clock_timestamp();
BEGIN
    IF of.ordered THEN
        INSERT INTO nb.message (
            id, place, source, state, rank, until, expires, line, name, body, headers, key, published, priority, details)
        SELECT p.n, p.n, of.id,
            CASE WHEN p.w > 0 THEN 1
                WHEN p.g IS NOT NULL AND (row_number() OVER (PARTITION BY p.w > 0, p.g ORDER BY p.n) > 1 OR EXISTS (
                    SELECT FROM nb.message o WHERE o.source = of.id AND o.line = p.g AND o.line IS NOT NULL)) THEN 4
                ELSE 0 END,
            0, CASE WHEN p.w > 0 THEN moment + make_interval(secs => p.w) END, moment + make_interval(secs => p.x),
            CASE WHEN p.w > 0 THEN NULL ELSE p.g END,
            p.i, p.b, p.h, p.k, p.a, p.p, p.d
        FROM (
            SELECT nextval('nb.place') AS n, CASE WHEN x.k IS NOT NULL THEN hashtextextended(x.k, 0) END AS g, x.*
            FROM ROWS FROM (jsonb_to_recordset(parts) AS (
                at integer, i text, h text, k text, a double precision, w double precision, p integer, x double precision, d text
            ), unnest(bodies)) AS x(at, i, h, k, a, w, p, x, d, b)
            WHERE NOT x.at = ANY (skip)
        ) p;
    ELSE
        INSERT INTO nb.message (
            id, place, source, state, rank, until, expires, name, body, headers, key, published, priority, details)
        SELECT p.n, p.n, of.id, CASE WHEN p.w > 0 THEN 1 ELSE in_state END, nb.rank(of, p.p),
            CASE WHEN p.w > 0 THEN moment + make_interval(secs => p.w)
                WHEN in_state = 5 THEN moment + make_interval(secs => keep) END,
            moment + make_interval(secs => p.x), p.i, p.b, p.h, p.k, p.a, p.p, p.d
        FROM (
            SELECT nextval('nb.place') AS n, x.*
            FROM ROWS FROM (jsonb_to_recordset(parts) AS (
                at integer, i text, h text, k text, a double precision, w double precision, p integer, x double precision, d text
            ), unnest(bodies)) AS x(at, i, h, k, a, w, p, x, d, b)
            WHERE NOT x.at = ANY (skip)
        ) p;
    END IF;
END
$$;

-- Store messages for one address. `later` are the numbers (from 1) of those that are delayed, `once` the keys of the ids that are
-- stored once, in the places of their messages. `twice`: the numbers of those that are there already.
CREATE FUNCTION nb.send(
    in_space integer, in_key text, in_path text, in_kind text, in_topic text, in_topic_path text, in_max integer, make boolean,
    dedup double precision, retention double precision, parts jsonb, bodies bytea[], later integer[], soon boolean, once jsonb
) RETURNS TABLE (verdict text, kind text, twice integer[]) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    of nb.source := nb.aim(in_space, in_key, in_path, in_kind, in_topic, in_topic_path, in_max, make);
    each record; grp nb.source; dropped integer[] := '{}'; now_many bigint; everything integer[]; prompt integer[];
BEGIN
    IF of.id IS NULL OR of.kind <> in_kind THEN
        RETURN QUERY SELECT CASE WHEN of.id IS NOT NULL THEN 'taken' WHEN in_kind = 'inbox' THEN '' ELSE 'missing' END,
            of.kind, dropped;
        RETURN;
    END IF;
    IF once IS NOT NULL AND dedup > 0 THEN
        FOR each IN SELECT o.key::integer AS at, o.value AS id FROM jsonb_each_text(once) o ORDER BY o.value, o.key::integer LOOP
            INSERT INTO nb.known AS k (source, key, until)
                VALUES (of.id, each.id, clock_timestamp() + make_interval(secs => dedup))
                ON CONFLICT (source, key) DO UPDATE SET until = excluded.until WHERE k.until <= clock_timestamp();
            IF NOT FOUND THEN
                dropped := dropped || each.at;
            END IF;
        END LOOP;
        DELETE FROM nb.known k WHERE k.ctid = ANY (ARRAY(
            SELECT x.ctid FROM nb.known x WHERE x.until <= (SELECT clock_timestamp()) ORDER BY x.until LIMIT 200
                FOR UPDATE SKIP LOCKED));
    END IF;
    now_many := cardinality(bodies) - cardinality(later) - cardinality(dropped);
    IF of.kind = 'topic' THEN
        PERFORM nb.tick_topic(of.id, retention);
        everything := ARRAY(SELECT generate_series(1, cardinality(bodies)));
        prompt := ARRAY(SELECT e FROM unnest(everything) e WHERE NOT e = ANY (later));
        IF cardinality(later) > 0 THEN
            PERFORM nb.store(of, parts, bodies, prompt || dropped, 0::smallint, 0);
        END IF;
        IF retention > 0 THEN
            PERFORM nb.store(of, parts, bodies, later || dropped, 5::smallint, retention);
        END IF;
        FOR each IN SELECT s.id FROM nb.source s WHERE s.topic = of.id AND s.topic IS NOT NULL ORDER BY s.id LOOP
            grp := nb.hold(each.id);
            CONTINUE WHEN grp.id IS NULL;
            IF grp.ordered THEN
                PERFORM nb.tick_source(grp);
            END IF;
            PERFORM nb.store(grp, parts, bodies, later || dropped, 0::smallint, 0);
            PERFORM nb.ring(grp, now_many + CASE WHEN soon THEN 1 ELSE 0 END);
        END LOOP;
    ELSE
        IF of.ordered THEN
            PERFORM nb.tick_source(of); -- what is due stands before what is published now
        END IF;
        PERFORM nb.store(of, parts, bodies, dropped, 0::smallint, 0);
        PERFORM nb.ring(of, now_many + CASE WHEN soon THEN 1 ELSE 0 END);
    END IF;
    RETURN QUERY SELECT '', of.kind, dropped;
END
$$;

-- The next messages of a source, counted and claimed. A row without an id tells that there is none: `name` says 'gone' when the
-- source is not there any more, 'deaf' when nobody is woken (see `listen`), and `rest` when the next one may be due.
CREATE FUNCTION nb.receive(in_space integer, in_id bigint, in_lease double precision, retention double precision, many integer)
RETURNS TABLE (
    id bigint, lease bigint, attempt integer, rest double precision, name text, body bytea, headers text, key text,
    published double precision, priority integer, details text, rank integer, place bigint
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE of nb.source; claim bigint; moment timestamptz; next_due timestamptz;
BEGIN
    SELECT * INTO of FROM nb.source s WHERE s.id = in_id;
    IF of.id IS NULL THEN
        RETURN QUERY SELECT NULL::bigint, 0::bigint, 0, 0.0::double precision, 'gone', ''::bytea, '', '', 0.0::double precision,
            0, '', 0, 0::bigint;
        RETURN;
    END IF;
    IF of.seen < clock_timestamp() + interval '45 seconds' THEN
        UPDATE nb.source s SET seen = clock_timestamp() + interval '1 minute' WHERE s.id = in_id;
    END IF;
    PERFORM nb.tick(of, retention);
    claim := nextval('nb.lease');
    moment := clock_timestamp();
    RETURN QUERY UPDATE nb.message m SET
        state = 2, lease = claim, until = moment + make_interval(secs => in_lease), attempt = least(m.attempt, 2147483646) + 1
        WHERE m.ctid = ANY (ARRAY(
            SELECT c.ctid FROM ( -- as many as fit into one answer, and one in any case
                SELECT r.ctid, sum(r.size) OVER (ROWS UNBOUNDED PRECEDING) - r.size AS before FROM (
                    SELECT x.ctid, octet_length(x.body) AS size FROM nb.message x WHERE x.source = in_id AND x.state = 0
                    ORDER BY x.source, x.rank, x.place LIMIT many FOR UPDATE SKIP LOCKED
                ) r
            ) c WHERE c.before < 67108864
        ))
        RETURNING m.id, m.lease, m.attempt, extract(epoch FROM m.expires - moment)::double precision, m.name, m.body, m.headers,
            m.key, m.published, m.priority, m.details, m.rank, m.place;
    IF NOT FOUND THEN
        SELECT least(
            (SELECT m.until FROM nb.message m WHERE m.source = in_id AND m.until IS NOT NULL ORDER BY m.source, m.until LIMIT 1),
            (SELECT m.until FROM nb.message m WHERE m.source = of.topic AND m.until IS NOT NULL ORDER BY m.source, m.until LIMIT 1)
        ) INTO next_due;
        RETURN QUERY SELECT NULL::bigint, 0::bigint, 0,
            extract(epoch FROM least(next_due, moment + interval '1 hour') - moment)::double precision,
            CASE WHEN of.heard < moment + interval '30 seconds' THEN 'deaf' ELSE '' END,
            ''::bytea, '', '', 0.0::double precision, 0, '', 0, 0::bigint;
    END IF;
END
$$;

-- From now on, who makes messages ready in this source notifies. It waits for those who are just making some.
CREATE FUNCTION nb.listen(in_space integer, in_id bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM nb.source s WHERE s.id = in_id FOR UPDATE;
    UPDATE nb.source s SET heard = clock_timestamp() + interval '1 minute' WHERE s.id = in_id;
END
$$;

-- Settle what is acknowledged, and each of `others`: o is n (nack after w seconds), r (return) or d (dead letter). The ids of
-- those that were settled, negative where the place of the dead letters is taken; the others' claims were over.
CREATE FUNCTION nb.settle(
    in_space integer, in_id bigint, is_ordered boolean, acks bigint[], leases bigint[], others jsonb, dead_key text, dead_path text
) RETURNS SETOF bigint LANGUAGE plpgsql AS $$
DECLARE of nb.source; grave nb.source; each record; it nb.message; moment timestamptz; freed bigint := 0;
BEGIN
    IF is_ordered OR others IS NOT NULL THEN
        of := nb.hold(in_id);
    END IF;
    moment := clock_timestamp();
    IF NOT is_ordered THEN
        RETURN QUERY DELETE FROM nb.message m USING unnest(acks, leases) AS a(id, lease)
            WHERE m.id = a.id AND m.lease = a.lease AND m.until > moment RETURNING m.id;
    ELSE
        FOR each IN
            DELETE FROM nb.message m USING unnest(acks, leases) AS a(id, lease)
                WHERE m.id = a.id AND m.lease = a.lease AND m.until > moment RETURNING m.id, m.line
        LOOP
            PERFORM nb.turn(in_id, each.line);
            freed := freed + 1;
            RETURN NEXT each.id;
        END LOOP;
    END IF;
    FOR each IN
        SELECT * FROM jsonb_to_recordset(others) AS a(id bigint, lease bigint, o text, w double precision, h text)
    LOOP
        SELECT * INTO it FROM nb.message m
            WHERE m.id = each.id AND m.lease = each.lease AND m.until > clock_timestamp() FOR UPDATE;
        CONTINUE WHEN NOT FOUND;
        IF each.o = 'd' AND dead_key IS NOT NULL AND grave.id IS NULL THEN
            grave := nb.aim(in_space, dead_key, dead_path, 'queue', NULL, NULL, 0, true);
            IF grave.ordered AND grave.kind = 'queue' THEN
                PERFORM nb.tick_source(grave);
            END IF;
        END IF;
        IF each.o = 'd' AND dead_key IS NOT NULL AND grave.kind <> 'queue' THEN
            RETURN NEXT -each.id; -- where its dead letters go there is something else: it stays ours
            CONTINUE;
        END IF;
        RETURN NEXT each.id;
        freed := freed + 1;
        IF each.o = 'n' AND each.w > 0 THEN
            UPDATE nb.message m SET state = CASE WHEN m.line IS NULL THEN 1 ELSE 3 END, lease = NULL,
                until = least(clock_timestamp() + make_interval(secs => each.w), m.expires) WHERE m.id = it.id;
        ELSIF each.o IN ('n', 'r') THEN
            UPDATE nb.message m SET state = 0, lease = NULL, until = NULL,
                attempt = m.attempt - CASE each.o WHEN 'r' THEN 1 ELSE 0 END WHERE m.id = it.id;
        ELSE
            DELETE FROM nb.message m WHERE m.id = it.id;
            PERFORM nb.turn(in_id, it.line);
            IF dead_key IS NOT NULL THEN
                it.headers := each.h;
                it.expires := NULL;
                PERFORM nb.copy(grave, it);
                PERFORM nb.ring(grave, 1);
            END IF;
        END IF;
    END LOOP;
    IF freed > 0 AND of.id IS NOT NULL THEN
        PERFORM nb.ring(of, freed);
    END IF;
END
$$;

-- Let each lease end `seconds` from now; the ids of those that were still ours.
CREATE FUNCTION nb.extend(in_space integer, ids bigint[], leases bigint[], seconds double precision) RETURNS SETOF bigint
LANGUAGE sql AS $$
    UPDATE nb.message m SET until = clock_timestamp() + make_interval(secs => seconds)
        FROM unnest(ids, leases) AS a(id, lease)
        WHERE m.id = a.id AND m.lease = a.lease AND m.until > clock_timestamp() RETURNING m.id
$$;

-- What is out goes back, and who else listens is woken for all that is ready: this consumer may have taken a wake of theirs.
CREATE FUNCTION nb.leave(in_space integer, in_id bigint, ids bigint[], leases bigint[], counted boolean) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE of nb.source := nb.hold(in_id);
BEGIN
    UPDATE nb.message m SET state = 0, lease = NULL, until = NULL, attempt = m.attempt - CASE WHEN counted THEN 0 ELSE 1 END
        FROM unnest(ids, leases) AS a(id, lease) WHERE m.id = a.id AND m.lease = a.lease;
    IF of.id IS NOT NULL THEN
        PERFORM nb.ring(of, (SELECT count(*) FROM (
            SELECT FROM nb.message m WHERE m.source = in_id AND m.state = 0 LIMIT 100) r));
    END IF;
END
$$;

-- How many messages a source has: ready (or behind one of their line), out, delayed; and the seconds for which one has been
-- ready, at most, by the first of each rank. Nothing where it is not there.
CREATE FUNCTION nb.depth(in_space integer, in_key text, retention double precision)
RETURNS TABLE (kind text, ready bigint, flight bigint, delayed bigint, oldest double precision) LANGUAGE plpgsql AS $$
DECLARE of nb.source := nb.find(in_space, in_key);
BEGIN
    IF of.id IS NOT NULL THEN
        PERFORM nb.tick(of, retention);
        RETURN QUERY SELECT of.kind,
            (SELECT count(*) FROM nb.message m WHERE m.source = of.id AND m.state = 0) + b.many,
            (SELECT count(*) FROM nb.message m WHERE m.source = of.id AND m.until IS NOT NULL AND m.state = 2),
            (SELECT count(*) FROM nb.message m WHERE m.source = of.id AND m.until IS NOT NULL AND m.state IN (1, 3)),
            extract(epoch FROM clock_timestamp() - least(b.since, (
                SELECT min(f.since) FROM (
                    SELECT m.rank FROM nb.message m WHERE m.source = of.id AND m.state = 0 ORDER BY m.source, m.rank LIMIT 1
                ) top, generate_series(greatest(top.rank, -9), 0) r(rank), LATERAL (
                    SELECT m.since FROM nb.message m WHERE m.source = of.id AND m.rank = r.rank AND m.state = 0
                    ORDER BY m.source, m.rank, m.place LIMIT 1) f)))::double precision
            FROM (SELECT count(*), min(m.since) FROM nb.message m
                WHERE m.source = of.id AND m.line IS NOT NULL AND m.state = 4) b(many, since);
    END IF;
END
$$;

-- Delete the messages of a source, those that are out as well where `all_of`. How many.
CREATE FUNCTION nb.empty(in_id bigint, all_of boolean) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE many bigint := 0; gone bigint;
BEGIN
    DELETE FROM nb.message m WHERE m.source = in_id AND m.state = 0;
    GET DIAGNOSTICS gone = ROW_COUNT; many := many + gone;
    DELETE FROM nb.message m WHERE m.source = in_id AND m.line IS NOT NULL AND m.state = 4;
    GET DIAGNOSTICS gone = ROW_COUNT; many := many + gone;
    DELETE FROM nb.message m WHERE m.source = in_id AND m.until IS NOT NULL AND (m.state IN (1, 3) OR all_of);
    GET DIAGNOSTICS gone = ROW_COUNT; many := many + gone;
    RETURN many;
END
$$;

-- Drop what is ready or delayed. What the source is, and how many; nothing where it is not there.
CREATE FUNCTION nb.purge(in_space integer, in_key text) RETURNS TABLE (kind text, many bigint) LANGUAGE plpgsql AS $$
DECLARE of nb.source := nb.hold((nb.find(in_space, in_key)).id);
BEGIN
    IF of.id IS NOT NULL THEN
        RETURN QUERY SELECT of.kind, nb.empty(of.id, false);
    END IF;
END
$$;

-- Delete a source of that kind with its messages, a topic with its groups. What is there in its place, or NULL.
CREATE FUNCTION nb.drop(in_space integer, in_key text, in_kind text) RETURNS TABLE (kind text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE of nb.source; one bigint;
BEGIN
    SELECT * INTO of FROM nb.source s WHERE s.space = in_space AND s.key = in_key FOR UPDATE;
    IF of.kind = in_kind THEN
        FOR one IN SELECT s.id FROM nb.source s WHERE s.id = of.id OR s.topic = of.id ORDER BY s.id FOR UPDATE LOOP
            DELETE FROM nb.source s WHERE s.id = one;
            PERFORM nb.empty(one, true);
            DELETE FROM nb.known k WHERE k.source = one;
            PERFORM pg_notify('nb.m.' || one, '1000');
        END LOOP;
    END IF;
    RETURN QUERY SELECT of.kind WHERE of.id IS NOT NULL;
END
$$;

-- Make an inbox, and drop those whose process is gone.
CREATE FUNCTION nb.inbox(in_space integer, in_key text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE one bigint;
BEGIN
    FOR one IN
        DELETE FROM nb.source s WHERE s.id IN (
            SELECT x.id FROM nb.source x WHERE x.seen <= (SELECT clock_timestamp()) ORDER BY x.id FOR UPDATE SKIP LOCKED
        ) RETURNING s.id
    LOOP
        PERFORM nb.empty(one, true);
    END LOOP;
    RETURN (nb.make(in_space, in_key, in_key, 'inbox', NULL, true, 30, 0, false, 0)).id;
END
$$;

-- Store a message in the transaction of another program. It is due at once, and arrives with the next call for its source, as
-- what is delayed does: so nothing is locked here that somebody waits for, and its place is that of the commit.
CREATE FUNCTION nb.send_in(
    in_prefix text, in_key text, in_path text, in_kind text, in_max integer, make boolean, part jsonb, body bytea
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE in_space integer; of nb.source;
BEGIN
    SELECT s.id INTO STRICT in_space FROM nb.space s WHERE s.prefix = in_prefix;
    of := nb.find(in_space, in_key);
    IF of.id IS NULL AND NOT make THEN
        RAISE EXCEPTION '% is not there, and the URL says declare=never', in_path;
    END IF;
    IF of.id IS NULL THEN
        of := nb.make(in_space, in_key, in_path, in_kind, NULL, in_kind = 'topic', 30, in_max, false, 0);
    END IF;
    IF of.kind <> in_kind THEN
        RAISE EXCEPTION '% is a % and no %', in_path, of.kind, in_kind
            USING HINT = 'Queues, topics and subscriptions share one namespace. Take another name.';
    END IF;
    INSERT INTO nb.message (source, state, rank, until, expires, name, body, headers, key, published, priority, details)
    VALUES (
        of.id, 1, nb.rank(of, (part->>'p')::integer),
        clock_timestamp() + make_interval(secs => coalesce((part->>'w')::double precision, 0)),
        clock_timestamp() + make_interval(secs => (part->>'x')::double precision),
        part->>'i', body, part->>'h', part->>'k', (part->>'a')::double precision, (part->>'p')::integer,
        part->>'d');
    PERFORM pg_notify('nb.m.' || s.id, '1') FROM nb.source s WHERE s.id = of.id OR (s.topic = of.id AND s.topic IS NOT NULL);
END
$$;
