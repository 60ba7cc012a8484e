-- The lock half of version 1. "nb" stands for the schema that the URL names.
--
-- lock     One row for each name that was used lately, kept when it is free: it is what contenders queue on, for the length of a
--          transaction. `holders` are those whose lease may run; one whose time is over counts as gone. All of them hold in `mode`
--          (and `size`), which mean nothing while there is none. Rows idle for an hour are deleted in passing: a token comes from
--          the sequence and is drawn while the row is locked, so it grows whether or not there was a row.
-- waiter   One row for each owner that waits, served by `seq`. Its place is lost `until` then, which each attempt moves on.
--          `listener` is the channel of its process.
-- evicted  Tokens that were broken, for their holders to learn why.
--
-- `key` is the name, or the hash of a long one: an index holds 2,700 bytes. Names are locked in the order of their keys, so two
-- batches never wait for each other in a circle.

-- What no holder of ours lacks, so that another program cannot write one that can be taken for a lease in part.
CREATE DOMAIN nb.word AS text CHECK (VALUE IS NOT NULL);
CREATE DOMAIN nb.number AS bigint CHECK (VALUE IS NOT NULL AND VALUE > 0);
CREATE DOMAIN nb.moment AS timestamptz CHECK (VALUE IS NOT NULL AND VALUE > '2000-01-01' AND VALUE < '294276-01-01');
CREATE DOMAIN nb.seconds AS double precision CHECK (VALUE IS NOT NULL AND VALUE > 0 AND VALUE < 1e9);

CREATE TYPE nb.holder AS (
    owner nb.word, token nb.number, ends nb.moment, ttl nb.seconds, label nb.word, since nb.moment
);

CREATE SEQUENCE nb.token AS bigint;

CREATE TABLE nb.lock (
    space integer NOT NULL,
    key text COLLATE "C" NOT NULL,
    name text NOT NULL,
    mode text NOT NULL DEFAULT 'exclusive' CHECK (mode IN ('exclusive', 'shared', 'semaphore')),
    size integer CHECK ((size IS NULL) = (mode <> 'semaphore')),
    holders nb.holder[] NOT NULL DEFAULT '{}',
    used timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (space, key)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

CREATE TABLE nb.waiter (
    space integer NOT NULL,
    key text COLLATE "C" NOT NULL,
    seq bigint GENERATED ALWAYS AS IDENTITY,
    owner text NOT NULL,
    mode text NOT NULL,
    size integer,
    until timestamptz NOT NULL,
    listener text NOT NULL,
    PRIMARY KEY (space, key, seq)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

CREATE TABLE nb.evicted (
    token bigint PRIMARY KEY,
    until timestamptz NOT NULL
);

-- Whether a contender may go beside `held` holders in `holding`, with `ahead` waiters before it: as `driver.admission` has it.
CREATE FUNCTION nb.admitted(mode text, size integer, holding text, held bigint, ahead bigint, writer boolean) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE mode
        WHEN 'exclusive' THEN held = 0 AND ahead = 0
        WHEN 'shared' THEN (held = 0 OR holding <> 'exclusive') AND NOT writer
        ELSE held + ahead < size
    END
$$;

-- The row of a name, locked until the transaction ends.
CREATE FUNCTION nb.lock_row(in_space integer, in_key text, in_name text) RETURNS nb.lock LANGUAGE plpgsql AS $$
DECLARE found_row nb.lock;
BEGIN
    LOOP
        SELECT * INTO found_row FROM nb.lock l WHERE l.space = in_space AND l.key = in_key FOR UPDATE;
        IF FOUND OR in_name IS NULL THEN
            RETURN found_row;
        END IF;
        INSERT INTO nb.lock (space, key, name) VALUES (in_space, in_key, in_name) ON CONFLICT DO NOTHING;
    END LOOP;
END
$$;

-- Tell the waiters that may go now. The caller has locked the row.
CREATE FUNCTION nb.lock_wake(in_space integer, in_key text, holding text, held bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE each nb.waiter; ahead bigint := 0; writer boolean := false;
BEGIN
    FOR each IN
        SELECT * FROM nb.waiter w WHERE w.space = in_space AND w.key = in_key AND w.until > clock_timestamp() ORDER BY w.seq
    LOOP
        EXIT WHEN NOT nb.admitted(each.mode, each.size, holding, held, ahead, writer);
        PERFORM pg_notify(each.listener, each.owner);
        ahead := ahead + 1;
        writer := writer OR each.mode = 'exclusive';
    END LOOP;
END
$$;

-- Take the holder with that token, or of that owner, off the row, which the caller has locked. When its lease ends; NULL: none.
CREATE FUNCTION nb.lock_free(held nb.lock, in_token bigint, in_owner text) RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE ends timestamptz; rest nb.holder[];
BEGIN
    SELECT h.ends INTO ends FROM unnest(held.holders) h
        WHERE (in_token IS NULL OR h.token = in_token) AND (in_owner IS NULL OR h.owner = in_owner);
    IF FOUND THEN
        rest := ARRAY(
            SELECT h FROM unnest(held.holders) h WHERE h.ends > clock_timestamp()
                AND NOT ((in_token IS NULL OR h.token = in_token) AND (in_owner IS NULL OR h.owner = in_owner))
        );
        UPDATE nb.lock l SET holders = rest, used = clock_timestamp() WHERE l.space = held.space AND l.key = held.key;
        PERFORM nb.lock_wake(held.space, held.key, held.mode, cardinality(rest));
    END IF;
    RETURN ends;
END
$$;

-- Take each name, or queue for it.
CREATE FUNCTION nb.attempt(in_space integer, asked jsonb, in_listener text, patience double precision, look_again double precision)
RETURNS TABLE (at integer, verdict text, token bigint, pause double precision, mode text, size integer) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    ask record; held nb.lock; living nb.holder[]; moment timestamptz; place bigint;
    ahead bigint; writer boolean; other_mode text; other_size integer; number bigint; sweep text;
BEGIN
    FOR ask IN
        SELECT * FROM jsonb_to_recordset(asked) AS a(
            at integer, key text, name text, owner text, ttl double precision, mode text, size integer, wait boolean, label text)
        ORDER BY a.key COLLATE "C"
    LOOP
        held := nb.lock_row(in_space, ask.key, ask.name);
        moment := clock_timestamp();
        living := ARRAY(SELECT h FROM unnest(held.holders) h WHERE h.ends > moment);
        SELECT h.token INTO number FROM unnest(living) h WHERE h.owner = ask.owner;
        IF FOUND THEN -- an earlier attempt's, whose answer did not arrive
            living := ARRAY(
                SELECT CASE WHEN h.owner = ask.owner
                    THEN ROW(h.owner, h.token, moment + make_interval(secs => ask.ttl), ask.ttl, h.label, h.since)::nb.holder
                    ELSE h END
                FROM unnest(living) h
            );
            UPDATE nb.lock l SET holders = living WHERE l.space = in_space AND l.key = ask.key;
            DELETE FROM nb.waiter w WHERE w.space = in_space AND w.key = ask.key AND w.owner = ask.owner;
            RETURN QUERY SELECT ask.at, 'granted', number, 0::double precision, ask.mode, ask.size;
            CONTINUE;
        END IF;
        place := NULL; ahead := 0; writer := false; other_mode := NULL; other_size := NULL;
        IF EXISTS (SELECT FROM nb.waiter w WHERE w.space = in_space AND w.key = ask.key) THEN
            DELETE FROM nb.waiter w
                WHERE w.space = in_space AND w.key = ask.key AND w.until <= moment AND w.owner <> ask.owner;
            SELECT w.seq INTO place FROM nb.waiter w
                WHERE w.space = in_space AND w.key = ask.key AND w.owner = ask.owner;
            SELECT count(*), coalesce(bool_or(w.mode = 'exclusive'), false), min(w.mode), min(w.size)
                INTO ahead, writer, other_mode, other_size FROM nb.waiter w
                WHERE w.space = in_space AND w.key = ask.key AND (place IS NULL OR w.seq < place);
        END IF;
        IF cardinality(living) > 0 THEN
            other_mode := held.mode;
            other_size := held.size;
        END IF;
        IF other_mode IS NOT NULL AND (ask.mode = 'semaphore' OR other_mode = 'semaphore')
            AND (ask.mode <> other_mode OR ask.size IS DISTINCT FROM other_size)
        THEN
            RETURN QUERY SELECT ask.at, 'conflict', 0::bigint, 0::double precision, other_mode, other_size;
        ELSIF nb.admitted(ask.mode, ask.size, held.mode, cardinality(living), ahead, writer) AND (ask.wait OR ahead = 0) THEN
            number := nextval('nb.token');
            UPDATE nb.lock l SET
                mode = ask.mode, size = ask.size, used = moment,
                holders = living || ROW(
                    ask.owner, number, moment + make_interval(secs => ask.ttl), ask.ttl, ask.label, moment)::nb.holder
                WHERE l.space = in_space AND l.key = ask.key;
            IF place IS NOT NULL THEN
                DELETE FROM nb.waiter w WHERE w.space = in_space AND w.key = ask.key AND w.seq = place;
            END IF;
            IF number % 100 = 0 THEN
                sweep := ask.key;
            END IF;
            RETURN QUERY SELECT ask.at, 'granted', number, 0::double precision, ask.mode, ask.size;
        ELSE
            IF ask.wait AND place IS NOT NULL THEN
                UPDATE nb.waiter w SET until = moment + make_interval(secs => patience), listener = in_listener
                    WHERE w.space = in_space AND w.key = ask.key AND w.seq = place;
            ELSIF ask.wait THEN
                INSERT INTO nb.waiter (space, key, owner, mode, size, until, listener) VALUES
                    (in_space, ask.key, ask.owner, ask.mode, ask.size, moment + make_interval(secs => patience), in_listener);
            END IF;
            -- Only the next waiter looks again when a lease ends. Each of the others is woken by the one ahead of it.
            RETURN QUERY SELECT ask.at, 'busy', 0::bigint, CASE
                WHEN nb.admitted(ask.mode, ask.size, NULL, 0, ahead, writer) THEN least(
                    look_again,
                    (SELECT greatest(0.001, min(extract(epoch FROM h.ends - moment)::double precision)) FROM unnest(living) h))
                ELSE look_again END, ask.mode, ask.size;
        END IF;
    END LOOP;
    IF sweep IS NOT NULL THEN -- last: it locks rows in an order of its own, and waits for none
        PERFORM nb.lock_sweep(in_space, sweep);
    END IF;
END
$$;

-- Start each lease afresh.
CREATE FUNCTION nb.renew(in_space integer, asked jsonb) RETURNS TABLE (at integer, verdict text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE ask record; held nb.lock; ends timestamptz; moment timestamptz;
BEGIN
    FOR ask IN
        SELECT * FROM jsonb_to_recordset(asked) AS a(at integer, key text, owner text, token bigint, ttl double precision)
        ORDER BY a.key COLLATE "C"
    LOOP
        held := nb.lock_row(in_space, ask.key, NULL);
        moment := clock_timestamp();
        ends := NULL;
        SELECT h.ends INTO ends FROM unnest(held.holders) h WHERE h.token = ask.token AND h.owner = ask.owner;
        IF ends > moment THEN
            UPDATE nb.lock l SET used = moment, holders = ARRAY(
                SELECT CASE WHEN h.token = ask.token
                    THEN ROW(h.owner, h.token, moment + make_interval(secs => ask.ttl), ask.ttl, h.label, h.since)::nb.holder
                    ELSE h END
                FROM unnest(held.holders) h
            ) WHERE l.space = in_space AND l.key = ask.key;
            IF ends > moment + make_interval(secs => ask.ttl) THEN -- the next waiter knows the old end: it is to look again
                PERFORM pg_notify(w.listener, w.owner) FROM (
                    SELECT * FROM nb.waiter w WHERE w.space = in_space AND w.key = ask.key AND w.until > moment
                    ORDER BY w.seq LIMIT 1
                ) w;
            END IF;
            RETURN QUERY SELECT ask.at, 'renewed';
        ELSIF ends IS NOT NULL THEN
            PERFORM nb.lock_free(held, ask.token, ask.owner);
            RETURN QUERY SELECT ask.at, 'expired';
        ELSE
            DELETE FROM nb.evicted e WHERE e.token = ask.token;
            RETURN QUERY SELECT ask.at, CASE WHEN FOUND THEN 'evicted' ELSE 'taken' END;
        END IF;
    END LOOP;
END
$$;

-- Free each generation. Whether its lease still ran.
CREATE FUNCTION nb.release(in_space integer, asked jsonb) RETURNS TABLE (at integer, ran boolean) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE ask record; held nb.lock; ends timestamptz;
BEGIN
    FOR ask IN
        SELECT * FROM jsonb_to_recordset(asked) AS a(at integer, key text, owner text, token bigint) ORDER BY a.key COLLATE "C"
    LOOP
        held := nb.lock_row(in_space, ask.key, NULL);
        ends := nb.lock_free(held, ask.token, ask.owner);
        RETURN QUERY SELECT ask.at, coalesce(ends > clock_timestamp(), false);
    END LOOP;
END
$$;

-- Remove each owner from both places where it can be.
CREATE FUNCTION nb.withdraw(in_space integer, asked jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE ask record; held nb.lock;
BEGIN
    FOR ask IN SELECT * FROM jsonb_to_recordset(asked) AS a(key text, owner text) ORDER BY a.key COLLATE "C" LOOP
        held := nb.lock_row(in_space, ask.key, NULL);
        DELETE FROM nb.waiter w WHERE w.space = in_space AND w.key = ask.key AND w.owner = ask.owner;
        IF nb.lock_free(held, NULL, ask.owner) IS NULL AND held.key IS NOT NULL THEN
            PERFORM nb.lock_wake(in_space, ask.key, held.mode,
                (SELECT count(*) FROM unnest(held.holders) h WHERE h.ends > clock_timestamp()));
        END IF;
    END LOOP;
END
$$;

-- Break one generation. Whether its lease still ran.
CREATE FUNCTION nb.evict(in_space integer, in_key text, in_token bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE ends timestamptz;
BEGIN
    ends := nb.lock_free(nb.lock_row(in_space, in_key, NULL), in_token, NULL);
    IF ends > clock_timestamp() THEN
        INSERT INTO nb.evicted VALUES (in_token, clock_timestamp() + interval '1 hour') ON CONFLICT DO NOTHING;
        DELETE FROM nb.evicted e WHERE e.until <= clock_timestamp();
        RETURN true;
    END IF;
    RETURN false;
END
$$;

-- Whose lease runs; of all names where `in_key` is NULL.
CREATE FUNCTION nb.holders(in_space integer, in_key text)
RETURNS TABLE (
    name text, token bigint, label text, mode text, size integer, since double precision, rest double precision, waiters bigint
) LANGUAGE sql STABLE AS $$
    SELECT l.name, h.token, h.label, l.mode, l.size, extract(epoch FROM h.since)::double precision,
        extract(epoch FROM h.ends - clock_timestamp())::double precision,
        (SELECT count(*) FROM nb.waiter w WHERE w.space = l.space AND w.key = l.key AND w.until > clock_timestamp())
    FROM nb.lock l, unnest(l.holders) h
    WHERE l.space = in_space AND (in_key IS NULL OR l.key = in_key) AND h.ends > clock_timestamp()
$$;

-- Delete some rows behind `in_key` that nobody has used for an hour. Keys are used in no order, so each row's turn comes.
CREATE FUNCTION nb.lock_sweep(in_space integer, in_key text) RETURNS void LANGUAGE sql AS $$
    DELETE FROM nb.waiter w USING (
        SELECT s.space, s.key, s.seq FROM nb.waiter s WHERE s.space = in_space AND s.key > in_key
        ORDER BY s.key LIMIT 50 FOR UPDATE SKIP LOCKED
    ) old WHERE w.space = old.space AND w.key = old.key AND w.seq = old.seq AND w.until < clock_timestamp() - interval '1 minute';
    DELETE FROM nb.lock l USING (
        SELECT s.space, s.key FROM nb.lock s WHERE s.space = in_space AND s.key > in_key
        ORDER BY s.key LIMIT 200 FOR UPDATE SKIP LOCKED
    ) old WHERE l.space = old.space AND l.key = old.key AND l.used < clock_timestamp() - interval '1 hour'
        AND NOT EXISTS (SELECT FROM unnest(l.holders) h WHERE h.ends > clock_timestamp())
        AND NOT EXISTS (SELECT FROM nb.waiter w WHERE w.space = l.space AND w.key = l.key);
$$;
