"""Faults of the Consul backend: in the checks of its transactions, in its session, and in what its queries tell."""

from __future__ import annotations

from integration.mutants import mutant

MUTANTS = [
    mutant(
        "a lock is taken without the check that its key is not there",
        "steps.py",
        '    operations.append(operation("check-not-exists", keys.lock))\n',
        "",
        *("L39", "L40", "L02", "L03", "L01"),
    ),
    mutant(
        "a release checks no generation",
        "steps.py",
        '    return [operation("check-index", key, Index=token), operation("delete", key)]\n',
        '    return [operation("delete", key)]\n',
        *("L12", "L10", "L55", "L16"),
    ),
    mutant(
        "those who share leave no trace in the record",
        "steps.py",
        "    record = sharing._replace(owners=rest)\n",
        "    record = sharing\n",
        *("L108", "L109"),
    ),
    mutant(
        "a permit too many",
        "steps.py",
        "held=held, ahead=0, writer_ahead=writer_ahead):",
        "held=held - 1, ahead=0, writer_ahead=writer_ahead):",
        *("L109", "L02", "L01"),
    ),
    mutant(
        "a waiting writer announces nothing",
        "steps.py",
        "        announce = exclusive and request.wait and bool(sharers) and request.owner not in state.wants\n",
        "        announce = False\n",
        *("L108", "L38"),
    ),
    mutant(
        "sizes never disagree",
        "steps.py",
        "    if holder is not None and held and disagree(",
        "    if holder is None and held and disagree(",
        "L109",
    ),
    mutant(
        "who shares with a session that has ended still counts",
        "entries.py",
        "        return [owner for owner in sharing.owners if owner in self.held] if sharing else []\n",
        "        return list(sharing.owners) if sharing else []\n",
        *("L109", "L108"),
    ),
    mutant(
        "an owner's own grant is not found",
        "steps.py",
        "mine.record.owner == request.owner and mine.session == session:",
        "mine.record.owner != request.owner and mine.session == session:",
        *("L91", "L39", "L02"),
    ),
    mutant(
        "a renewal does not look whether the entry is there",
        "locks.py",
        "            if isinstance(answer, dict):\n                answers.append(grant)\n",
        "            if answer is not None:\n                answers.append(grant)\n",
        *("L16", "L60", "L62", "L66"),
    ),
    mutant(
        "an owner in doubt is forgotten",
        "locks.py",
        "        doubts = self._owners.in_doubt()\n        if not doubts:\n            return states\n",
        "        doubts = self._owners.in_doubt()\n        return states\n",
        *("L91", "L94", "L96", "L29", "L90"),
    ),
    mutant(
        "a withdrawal is not said again while the attempt may be under way",
        "owners.py",
        "        if until - self._doubt + self._patience > now:\n            return True\n",
        "        self._doubts.pop(request.owner, None)\n",
        *("L91", "L94", "L96", "L90"),
    ),
    mutant(
        "a query asks for changes from now on",
        "watcher.py",
        '("index", str(max(1, watch.index)))',
        '("index", str(10**15))',
        *("L31", "L23", "L21", "L28"),
    ),
    mutant(
        "a change wakes one waiter of the process",
        "watcher.py",
        "            wakes = list(watch.wakes.values())\n",
        "            wakes = list(watch.wakes.values())[:1]\n",
        *("L108", "L21", "L30", "L109"),
    ),
    mutant(
        "a query that failed is not sent again",
        "watcher.py",
        "            self._later[name] = self._clock() + watch.pause\n",
        "",
        *("L32", "L104"),
    ),
    mutant(
        "the session ends with the lock's delay",
        "session.py",
        '            "Behavior": "delete",\n',
        '            "Behavior": "release",\n',
        *("L48", "L22", "L81", "L113", "L18"),
    ),
]
