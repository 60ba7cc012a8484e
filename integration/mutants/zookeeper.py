"""Faults of the ZooKeeper backend: in the queue of nodes, in what a waiter watches, and in how a holder learns of its loss."""

from __future__ import annotations

from integration.mutants import mutant

MUTANTS = [
    mutant(
        "a permit too many",
        "decision.py",
        "        if len(ahead) < (limit or 0):\n",
        "        if len(ahead) <= (limit or 0):\n",
        "L109",
    ),
    mutant(
        "a reader passes a writer that waits",
        "decision.py",
        "        if mode is Mode.EXCLUSIVE or other.mode is Mode.EXCLUSIVE:\n",
        "        if mode is Mode.EXCLUSIVE:\n",
        *("L108", "L17"),
    ),
    mutant(
        "sizes never disagree",
        "decision.py",
        "        if disagree(mode, limit, other.mode, other.limit):\n",
        "        if False:\n",
        *("L109", "L108"),
    ),
    mutant(
        "a waiter watches the first of the queue",
        "decision.py",
        "    for other in reversed(ahead):\n",
        "    for other in ahead:\n",
        *("L36", "L30", "L21", "L28"),
    ),
    mutant(
        "a contender looks at those behind it as well",
        "taking.py",
        "    decision = decide(request.mode, request.limit, queue[:index])\n",
        "    decision = decide(request.mode, request.limit, queue[:index] + queue[index + 1 :])\n",
        *("L21", "L36", "L23"),
    ),
    mutant(
        "a try that lost leaves its node",
        "taking.py",
        "    if not request.wait:\n        return (yield from _leave(state, request, node, directory))\n    other",
        "    if not request.wait:\n        return Busy(LOOK_AGAIN)\n    other",
        *("L18", "L28", "L02", "L20"),
    ),
    mutant(
        "a node whose creation was not answered is not looked for",
        "taking.py",
        "        yield from _search(state, request.owner, node, directory, listed)\n",
        "",
        *("L91", "L94"),
    ),
    mutant(
        "a node of a session that has ended is taken for ours",
        "taking.py",
        "    if index is None or node.session != state.session.id:\n        node.lost()",
        "    if index is None:\n        node.lost()",
        *("L86", "L85", "L104"),
    ),
    mutant(
        "a withdrawal leaves the node",
        "holding.py",
        "        for result in (yield [(state.pipe.delete, path) for path in paths]):\n",
        "        for result in (yield [(state.pipe.sync,)]):\n",
        *("L28", "L30", "L34", "L91"),
    ),
    mutant(
        "a renewal does not look whether the node is there",
        "holding.py",
        "    gone = Reason.SESSION_ENDED if node.session != state.session.id else node.gone  "
        "# kazoo's thread may have told meanwhile\n",
        "    gone = None\n",
        *("L62", "L16", "L60", "L66"),
    ),
    mutant(
        "a lease that has ended is renewed",
        "holding.py",
        "    if now >= node.ends:\n",
        "    if False:\n",
        *("L54", "L66"),
    ),
    mutant(
        "the janitor sends nobody away",
        "queue_node.py",
        "            if self.path is None or self._under_way or not (late or self.expelled):\n",
        "            if True:\n",
        *("L48", "L22", "L37", "L122", "L81"),
    ),
    mutant(
        "a holder does not watch its node",
        "provider_state.py",
        "        self._suspect(event.path)\n",
        "        pass\n",
        *("L62", "L16"),
    ),
    mutant(
        "waiters are not woken when there is a connection again",
        "provider_state.py",
        "            if not node.granted:\n                node.woken(time.monotonic())\n                node.wake()\n",
        "            pass\n",
        *("L32", "L104"),
    ),
    mutant(
        "a token is that of the lock's node",
        "queue_node.py",
        "            self.path, self.token, self.session = path, stat.czxid, stat.ephemeralOwner\n",
        "            self.path, self.token, self.session = path, 7, stat.ephemeralOwner\n",
        *("L74", "L21", "L75"),
    ),
]
