"""Faults of the PostgreSQL backend: in its functions, which decide everything, and in what hears notifications."""

from __future__ import annotations

from integration.mutants import mutant

#: How `receive` chooses what it claims, up to the lock.
_CLAIM = """\
        WHERE m.ctid = ANY (ARRAY(
            SELECT c.ctid FROM ( -- as many as fit into one answer, and one in any case
                SELECT r.ctid, sum(r.size) OVER (ROWS UNBOUNDED PRECEDING) - r.size AS before FROM (
                    SELECT x.ctid, octet_length(x.body) AS size FROM nb.message x WHERE x.source = in_id AND x.state = 0
                    ORDER BY x.source, x.rank, x.place LIMIT many FOR UPDATE SKIP LOCKED
"""

MUTANTS = [
    mutant(
        "a release frees any generation",
        "sql/locks.sql",
        "        ends := nb.lock_free(held, ask.token, ask.owner);\n        RETURN QUERY SELECT ask.at, coalesce",
        "        ends := nb.lock_free(held, NULL, NULL);\n        RETURN QUERY SELECT ask.at, coalesce",
        *("L10", "L12", "L45"),
    ),
    mutant(
        "a lease that has ended is renewed",
        "sql/locks.sql",
        "        IF ends > moment THEN\n            UPDATE nb.lock l SET used = moment",
        "        IF ends IS NOT NULL THEN\n            UPDATE nb.lock l SET used = moment",
        "L54",
    ),
    mutant(
        "renewals add to what is left",
        "sql/locks.sql",
        "                SELECT CASE WHEN h.token = ask.token\n                    THEN ROW(h.owner, h.token, moment +",
        "                SELECT CASE WHEN h.token = ask.token\n                    THEN ROW(h.owner, h.token, h.ends +",
        *("L52", "L60"),
    ),
    mutant(
        "a repeated attempt leaves the lease as it is",
        "sql/locks.sql",
        "            UPDATE nb.lock l SET holders = living WHERE l.space = in_space AND l.key = ask.key;\n            DELETE",
        "            DELETE",
        "L91",
    ),
    mutant(
        "a name's row is read without a lock",
        "sql/locks.sql",
        "l.key = in_key FOR UPDATE;\n        IF FOUND OR in_name IS NULL",
        "l.key = in_key;\n        IF FOUND OR in_name IS NULL",
        *("L39", "L108"),
    ),
    mutant(
        "a renewal reads its name's row without a lock",
        "sql/locks.sql",
        "        held := nb.lock_row(in_space, ask.key, NULL);\n        moment :=",
        "        SELECT * INTO held FROM nb.lock l WHERE l.space = in_space AND l.key = ask.key;\n        moment :=",
        "L108",
    ),
    mutant(
        "a release reads its name's row without a lock",
        "sql/locks.sql",
        "        held := nb.lock_row(in_space, ask.key, NULL);\n        ends := nb.lock_free",
        "        SELECT * INTO held FROM nb.lock l WHERE l.space = in_space AND l.key = ask.key;\n        ends := nb.lock_free",
        "L108",
    ),
    mutant(
        "a free lock is given to a waiter that is not the first",
        "sql/locks.sql",
        "        ELSIF nb.admitted(ask.mode, ask.size, held.mode, cardinality(living), ahead, writer) AND",
        "        ELSIF nb.admitted(ask.mode, ask.size, held.mode, cardinality(living), 0, false) AND",
        *("L36", "L108"),
    ),
    mutant(
        "a withdrawal wakes nobody",
        "sql/locks.sql",
        "        IF nb.lock_free(held, NULL, ask.owner) IS NULL AND held.key IS NOT NULL THEN",
        "        PERFORM nb.lock_free(held, NULL, ask.owner);\n        IF false THEN",
        *("L30", "L29"),
    ),
    mutant(
        "a release wakes the first waiter only",
        "sql/locks.sql",
        "        PERFORM pg_notify(each.listener, each.owner);\n        ahead := ahead + 1;",
        "        PERFORM pg_notify(each.listener, each.owner);\n        EXIT;\n        ahead := ahead + 1;",
        *("L108", "L109"),
    ),
    mutant(
        "tokens are drawn from a clock of whole seconds",
        "sql/locks.sql",
        "            number := nextval('nb.token');",
        "            number := floor(extract(epoch FROM clock_timestamp()))::bigint;",
        *("L74", "L21", "L75"),
    ),
    mutant(
        "holders are shown after their lease",
        "sql/locks.sql",
        "(in_key IS NULL OR l.key = in_key) AND h.ends > clock_timestamp()\n",
        "(in_key IS NULL OR l.key = in_key)\n",
        "L48",
    ),
    mutant(
        "the listening connection is not made again",
        "listening.py",
        "                self._broke(error)\n",
        "                self._broke(error)\n                return\n",
        *("L32", "L104", "B71"),
    ),
    mutant(
        "nobody is woken when the listening connection stands again",
        "listening.py",
        "        if more:\n            self._changed()\n",
        "",
        *("L32", "L104", "B71"),
    ),
    mutant(
        "an ack after the end of the lease settles",
        "sql/flow.sql",
        "            WHERE m.id = a.id AND m.lease = a.lease AND m.until > moment RETURNING m.id;\n",
        "            WHERE m.id = a.id AND m.lease = a.lease RETURNING m.id;\n",
        "B30",
    ),
    mutant(
        "an ack of a stale delivery settles",
        "sql/flow.sql",
        "            WHERE m.id = a.id AND m.lease = a.lease AND m.until > moment RETURNING m.id;\n",
        "            WHERE m.id = a.id AND m.until > moment RETURNING m.id;\n",
        *("B26", "B80"),
    ),
    mutant(
        "an extension adds to what is left",
        "sql/flow.sql",
        "SET until = clock_timestamp() + make_interval(secs => seconds)\n        FROM unnest(ids, leases)",
        "SET until = m.until + make_interval(secs => seconds)\n        FROM unnest(ids, leases)",
        "B30",
    ),
    # By `id`: by `ctid` the missing lock alone is no fault on a server of late 2025 (seen: 15.18). It compares the `ctid` of a
    # row that it has waited for once more, and the second consumer claims nothing.
    mutant(
        "two consumers claim one message",
        "sql/flow.sql",
        _CLAIM,
        _CLAIM.replace("ctid", "id").replace(" FOR UPDATE SKIP LOCKED", ""),
        *("B13", "B86"),
    ),
    mutant(
        "two consumers let one message come due",
        "sql/messages.sql",
        "            AND m.until IS NOT NULL ORDER BY m.source, m.until FOR UPDATE SKIP LOCKED\n",
        "            AND m.until IS NOT NULL ORDER BY m.source, m.until\n",
        *("B47", "B86"),
    ),
    mutant(
        "two consumers let one message of a topic come due",
        "sql/messages.sql",
        "        ORDER BY m.source, m.until FOR UPDATE SKIP LOCKED\n    );",
        "        ORDER BY m.source, m.until\n    );",
        *("B48", "B86"),
    ),
    mutant(
        "the time to live counts from when a message is due",
        "sql/flow.sql",
        "p.x), p.i, p.b, p.h, p.k, p.a, p.p, p.d\n        FROM (\n            SELECT nextval('nb.place') AS n, x.*\n",
        "p.x + coalesce(p.w, 0)), p.i, p.b, p.h, p.k, p.a, p.p, p.d\n        FROM (\n"
        "            SELECT nextval('nb.place') AS n, x.*\n",
        *("B52", "B51"),
    ),
    mutant(
        "a topic that is deleted leaves its groups",
        "sql/flow.sql",
        "FROM nb.source s WHERE s.id = of.id OR s.topic = of.id ORDER BY s.id FOR UPDATE LOOP\n            DELETE",
        "FROM nb.source s WHERE s.id = of.id ORDER BY s.id FOR UPDATE LOOP\n            DELETE",
        *("B100", "B18"),
    ),
    mutant(
        "a purge drops what is in flight",
        "sql/flow.sql",
        "RETURN QUERY SELECT of.kind, nb.empty(of.id, false);",
        "RETURN QUERY SELECT of.kind, nb.empty(of.id, true);",
        "B102",
    ),
]
