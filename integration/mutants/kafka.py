"""Faults of the Kafka backend: in the ledger that a commit carries, in what is committed when, and in what is handed out."""

from __future__ import annotations

from integration.mutants import mutant

_LEDGER = "format/ledger.py"

MUTANTS = [
    mutant(
        "what is settled out of order is not told",
        _LEDGER,
        "    for span in ledger.settled.ranges():\n        _mark(bits, span.start - base, span.stop - base)\n",
        "",
        *("B28", "B39", "B29"),
    ),
    mutant(
        "a commit passes what is not settled",
        _LEDGER,
        "        self.base = self.settled.after(self.base)\n",
        "        self.base = self.settled.end or self.base\n",
        *("B28", "B29", "B33", "B38"),
    ),
    mutant(
        "the last bit of a run is lost",
        _LEDGER,
        "    head, tail = 0xFF << (start & 7) & 0xFF, 0xFF >> (7 - (stop - 1 & 7))\n",
        "    head, tail = 0xFF << (start & 7) & 0xFF, 0xFF >> (8 - (stop - 1 & 7))\n",
        *("B28", "B39"),
    ),
    mutant(
        "the claims of a partition are forgotten with its owner",
        _LEDGER,
        "    runs = list(_runs(ledger, top))\n",
        "    runs = []\n    top = 0\n",
        *("B34", "B63", "B64", "B40"),
    ),
    mutant(
        "what comes back is not counted",
        _LEDGER,
        "        counts = [self.claims.get(offset, _FRESH).times + 1 for offset in offsets]\n",
        "        counts = [max(1, self.claims.get(offset, _FRESH).times) for offset in offsets]\n",
        *("B34", "B40", "B22", "B32"),
    ),
    mutant(
        "what is returned is counted",
        _LEDGER,
        "Claim(count if counted else count - 1, False)",
        "Claim(count, False)",
        *("B34", "B38", "B93"),
    ),
    mutant(
        "a settled message is handed out again by the next owner",
        _LEDGER,
        "        return offset >= self.base and offset not in self.settled\n",
        "        return offset >= self.base\n",
        *("B28", "B39"),
    ),
    mutant(
        "a base is told one too far",
        "member/commits.py",
        "                    offsets[tp] = Committed(part.ledger.base, text)\n",
        "                    offsets[tp] = Committed(part.ledger.base + bool(part.out), text)\n",
        *("B33", "B63", "B28", "B38"),
    ),
    mutant(
        "settled before it is committed",
        "member/deliveries.py",
        "            if touched:\n                await self._commits.commit({part.tp for part in touched})\n",
        "            if touched:\n                self._commits.dirty.update(part.tp for part in touched)\n",
        *("B65", "B39", "B28"),
    ),
    mutant(
        "handed out before it is committed",
        "member/deliveries.py",
        "            await self._commits.commit({part.tp for part in {tag.part for tag in picked}})\n",
        "            self._commits.dirty.update(part.tp for part in {tag.part for tag in picked})\n",
        *("B64", "B34", "B63", "B40"),
    ),
    mutant(
        "a settlement of what is no longer ours succeeds",
        "member/deliveries.py",
        "                mine = part.owned and tag.done == how\n",
        "                mine = True\n",
        *("B25", "B27", "B66", "B80"),
    ),
    mutant(
        "an expired message is delivered",
        "member/partition.py",
        "            if tag.expires <= now:\n",
        "            if False:\n",
        *("B51", "B52"),
    ),
    mutant(
        "what was returned comes behind all others",
        "member/partition.py",
        "        if self.returned:\n            return heapq.heappop(self.returned)[1]\n"
        "        return self.ready.popleft() if self.ready and not self.crowded else None\n",
        "        if self.ready and not self.crowded:\n            return self.ready.popleft()\n"
        "        return heapq.heappop(self.returned)[1] if self.returned else None\n",
        *("B23", "B55", "B56"),
    ),
    mutant(
        "a message that waits for longer loses its attempts",
        "publishing/mover.py",
        "            attempts = records.attempts(record) + (claims.times if claims else 0)\n",
        "            attempts = records.attempts(record)\n",
        *("B34", "B40", "B46"),
    ),
    mutant(
        "a copy that was not confirmed is settled",
        "publishing/mover.py",
        "                done = moved and answers[index] is None\n",
        "                done = True\n",
        *("B47", "B49", "B76"),
    ),
]
