"""Faults of the Cassandra backend: in the conditions of its lightweight transactions, and in when their rows end."""

from __future__ import annotations

from integration.mutants import mutant

MUTANTS = [
    mutant(
        "a taking does not compare who holds",
        "steps.py",
        'only=" AND h=null"),',
        'only=""),',
        *("L39", "L02", "L01", "L03", "L40"),
    ),
    mutant(
        "a release compares nothing",
        "steps.py",
        '"free": "DELETE h[?] FROM {table} {here} IF h[?]=?",',
        '"free": "DELETE h[?] FROM {table} {here} IF h[?]!=? ",',
        *("L01", "L05", "L12"),
    ),
    mutant(
        "readers share past a writer that waits",
        "steps.py",
        "        ahead = state.writer not in (None, request.owner)\n",
        "        ahead = False\n",
        *("L108",),
    ),
    mutant(
        "a writer that waits leaves no mark",
        "steps.py",
        "            if wants and not ahead and not announced:\n",
        "            if False:\n",
        *("L108",),
    ),
    mutant(
        "a lease ends a second early",
        "steps.py",
        "    return math.ceil(ttl) + 1\n",
        "    return max(1, math.ceil(ttl) - 1)\n",
        *("L49", "L48", "L52", "L58"),
    ),
    mutant(
        "a withdrawal does not raise the version",
        "steps.py",
        "        bumped = next_version(None if state.mad else state.version)\n",
        "        bumped = state.version\n",
        *("L91", "L29", "L94", "L90"),
    ),
    mutant(
        "a withdrawal frees nothing",
        "steps.py",
        "        slot = len(state.texts) + 1 if slot is None else slot  # one without",
        "        slot = len(state.texts) + 1  # one without",
        *("L91", "L29", "L71"),
    ),
    mutant(
        "an owner's own grant is not found",
        "steps.py",
        "        mine = state.slot_of(request.owner)\n        if mine is not None:",
        "        mine = state.slot_of(request.owner)\n        if False:",
        *("L91", "L52"),
    ),
    mutant(
        "a renewal that was refused is told as done",
        "locks.py",
        '        if answer and answer[0].get("[applied]") and place is not None:\n            self._owners.granted',
        "        if place is not None:\n            self._owners.granted",
        *("L16", "L54", "L60", "L62"),
    ),
    mutant(
        "sizes never disagree",
        "steps.py",
        "        if first is not None and disagree(",
        "        if first is None and disagree(",
        "L109",
    ),
]
