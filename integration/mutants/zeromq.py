"""Faults of the ZeroMQ backend, in its server and in its client: what is gathered, whose it is, and who is woken."""

from __future__ import annotations

from integration.mutants import mutant

MUTANTS = [
    mutant(
        "what takes goes before what frees, and a withdrawal before its attempt",
        "server/desk.py",
        'ORDER = ("release", "renew", "settle", "extend", "attempt", "withdraw", "send")',
        'ORDER = ("withdraw", "attempt", "release", "renew", "settle", "extend", "send")',
        *("L29", "L91", "L94"),
    ),
    mutant(
        "a client that goes away keeps its places in the queue",
        "server/desk.py",
        "        waiting, session.waiting = list(session.waiting.values()), {}\n",
        "        waiting, session.waiting = [], {}\n",
        *("L84", "L113", "L37"),
    ),
    mutant(
        "a client that goes away keeps what it received",
        "server/desk.py",
        "                self._end(session, number)\n",
        "                session.feeds.pop(number)\n",
        *("B38", "B63", "B74"),
    ),
    mutant(
        "a consumer that is opened again after a lost answer is a second one",
        "server/desk.py",
        "        if key not in feeds:  # asked again, the answer was lost\n",
        "        if True:\n",
        *("B71", "B74", "B78", "B72"),
    ),
    mutant(
        "a consumer that closes stays open at the server",
        "server/desk.py",
        "            self._end(ask.session, number)\n        ask.give(True)\n",
        "            pass\n        ask.give(True)\n",
        *("B33", "B38", "B93", "B91"),
    ),
    mutant(
        "a lease that is asked for later is not used",
        "server/desk.py",
        "        feed.use(source.properties._replace(lease=wanted))\n",
        "",
        *("B128", "B129"),
    ),
    mutant(
        "an inbox has no feed",
        "server/desk.py",
        "        ask.session.feeds[key] = feed, Source(address, Properties())\n",
        "",
        *("B107", "B123"),
    ),
    mutant(
        "a busy answer ends the wait at the client",
        "locks.py",
        "            if answer.__class__ is not Busy:\n                waiting.pop(request.owner, None)\n",
        "            waiting.pop(request.owner, None)\n",
        *("L21", "L23", "L31"),
    ),
    mutant(
        "a wake reaches the first waiter of a client only",
        "locks.py",
        "        wakes = list(self._waiting.values()) if owners is None else [self._waiting.get(owner) for owner in owners]\n",
        "        wakes = list(self._waiting.values())[:1]\n",
        *("L36", "L108", "L30", "L23"),
    ),
]
