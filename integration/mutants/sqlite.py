"""Faults of the sqlite backend: in the statements that decide who holds what, and in its transactions."""

from __future__ import annotations

from integration.mutants import mutant

MUTANTS = [
    mutant(
        "a release frees any generation",
        "tables/lock_rows.py",
        '_FREE_OWN = "DELETE FROM lock_holder WHERE prefix = ? AND name = ? AND token = ? AND owner = ? AND clock',
        '_FREE_OWN = "DELETE FROM lock_holder WHERE prefix = ? AND name = ? AND token <> -? AND owner <> ? AND clock',
        *("L10", "L12"),
    ),
    mutant(
        "a lease that has ended is renewed",
        "tables/lock_rows.py",
        '"WHERE prefix = ? AND name = ? AND token = ? AND owner = ? AND clock = ? AND ends > ?"\n)\n_FREE =',
        '"WHERE prefix = ? AND name = ? AND token = ? AND owner = ? AND clock = ? AND ends <> ?"\n)\n_FREE =',
        "L54",
    ),
    mutant(
        "renewals add to what is left",
        "tables/lock_rows.py",
        '    "UPDATE lock_holder SET ends = ?, ttl = ?, renewals = renewals + 1 "',
        '    "UPDATE lock_holder SET ends = ends + ttl + 0 * ?, ttl = ?, renewals = renewals + 1 "',
        *("L52", "L60"),
    ),
    mutant(
        "a repeated attempt leaves the lease as it is",
        "tables/lock_rows.py",
        "                connection.execute(_RENEW, (now + ttl, self._observer.clock, ttl, prefix, name, lease.token))\n"
        "                connection.execute(_LEAVE_OWNER",
        "                connection.execute(_LEAVE_OWNER",
        "L91",
    ),
    mutant(
        "a free lock is given to a waiter that is not the first",
        "tables/lock_rows.py",
        "held=held, ahead=ahead, writer_ahead=writer_ahead)\n        if free and",
        "held=held, ahead=0, writer_ahead=False)\n        if free and",
        *("L36", "L108"),
    ),
    mutant(
        "a withdrawn owner keeps its grant",
        "tables/lock_rows.py",
        "        connection.execute(_FREE_OWNER, (self._prefix, name, owner))\n",
        "",
        *("L91", "L29", "L71"),
    ),
    mutant(
        "tokens are counted for each boot",
        "tables/lock_rows.py",
        "            connection.execute(_COUNT_ON, (token, self._boot))\n",
        "            connection.execute(_COUNT_ON, (max(1, token % 3), self._boot))\n",
        *("L74", "L75", "L40"),
    ),
    mutant(
        "two namespaces of locks meet",
        "locks.py",
        "Rows(options.prefix, ",
        'Rows("", ',
        "L107",
    ),
    mutant(
        "holders are shown after their lease",
        "tables/lock_rows.py",
        "            if left > 0:\n                found.append(Holder(",
        "            if left > -1e9:\n                found.append(Holder(",
        "L48",
    ),
    mutant(
        "an ack after the end of the lease settles",
        "tables/message_rows.py",
        'FROM delivery{where} AND token = ? AND clock = ? AND until > ?"',
        'FROM delivery{where} AND token = ? AND clock = ? AND until <> ?"',
        "B30",
    ),
    mutant(
        "an ack of a stale delivery settles",
        "tables/message_rows.py",
        'FROM delivery{where} AND token = ? AND clock = ? AND until > ?"',
        'FROM delivery{where} AND token <> -? AND clock = ? AND until > ?"',
        *("B26", "B80"),
    ),
    mutant(
        "an extension adds to what is left",
        "tables/message_rows.py",
        '"UPDATE delivery SET until = ?, span = ? WHERE id = ?", (moment.now + seconds, seconds, row)',
        '"UPDATE delivery SET until = until + ?, span = ? WHERE id = ?", (seconds, seconds, row)',
        "B30",
    ),
    mutant(
        "what comes back is not counted",
        "tables/message_rows.py",
        "span = ?, attempt = {_NEXT_ATTEMPT}",
        "span = ?, attempt = max(attempt, 0)",
        *("B34", "B22", "B40"),
    ),
    mutant(
        "the next of a key does not move up",
        "tables/message_rows.py",
        "    for source, key in {row[2:] for row in found if row[3] is not None}:\n        turn(connection, source, key)\n",
        "",
        *("B57", "B59", "B58", "B56"),
    ),
    mutant(
        "a purge drops what is in flight",
        "tables/message_rows.py",
        '"until IS NOT NULL AND state IN (1, 3)"',
        '"until IS NOT NULL AND state IN (1, 2, 3)"',
        "B102",
    ),
    mutant(
        "a message in flight expires",
        "tables/message_rows.py",
        "AND expires IS NOT NULL AND state <> 2 LIMIT ?",
        "AND expires IS NOT NULL LIMIT ?",
        "B51",
    ),
    mutant(
        "the newest of a key moves up",
        "tables/message_rows.py",
        '" (SELECT id FROM delivery WHERE source = ? AND key = ? ORDER BY place, message LIMIT 1)",',
        '" (SELECT id FROM delivery WHERE source = ? AND key = ? ORDER BY place DESC, message DESC LIMIT 1)",',
        *("B56", "B61", "B57"),
    ),
    mutant(
        "a return is counted",
        "tables/message_rows.py",
        "[(0 if counted else 1, row, token)",
        "[(0, row, token)",
        *("B34", "B38", "B93"),
    ),
]
