"""Faults of the RabbitMQ backend: in its window of confirms, in what is settled and when, and on the ladder of delays."""

from __future__ import annotations

from integration.mutants import mutant

_PUBLISHER = "connection/publisher.py"

MUTANTS = [
    mutant(
        "a refused message is confirmed",
        _PUBLISHER,
        'CONFIRMED if method.NAME == "Basic.Ack" else REFUSED',
        "CONFIRMED",
        *("B82", "B76", "B16"),
    ),
    mutant(
        "a confirm of one is taken for all before it",
        _PUBLISHER,
        "        if method.multiple:\n",
        "        if True:\n",
        *("B16", "B07", "B73"),
    ),
    mutant(
        "a confirm of many confirms the last one",
        _PUBLISHER,
        "            for each in range(self._oldest, number + 1):\n",
        "            for each in range(number, number + 1):\n",
        *("B19", "B07", "B01", "B11", "B104"),
    ),
    mutant(
        "a message that was sent is said not to be",
        _PUBLISHER,
        "                batch.results[index] = UNKNOWN\n",
        "",
        *("B76", "B72", "B73", "B77"),
    ),
    mutant(
        "a message that reached no queue is confirmed",
        _PUBLISHER,
        "                outcome = RETURNED\n",
        "",
        *("B16", "B18", "B17", "B107"),
    ),
    mutant(
        "a publish does not wait for its confirm",
        _PUBLISHER,
        "                batch.results[index] = UNKNOWN\n",
        "                batch.results[index] = CONFIRMED\n                batch.left -= 1\n"
        "                if batch.left == 0:\n                    batch.answer.give(None)\n",
        *("B76", "B72", "B77", "B16"),
    ),
    mutant(
        "what a dead channel had under way is confirmed",
        _PUBLISHER,
        "        for batch in batches.values():\n            self.abandon(batch, error)\n",
        "        for batch in batches.values():\n            batch.results = [CONFIRMED] * len(batch.results)\n"
        "            self.abandon(batch, error)\n",
        *("B72", "B76", "B77", "B127"),
    ),
    mutant(
        "a copy that was not confirmed is settled",
        "settlement.py",
        "            if outcome is not CONFIRMED:\n",
        "            if False:\n",
        *("B44", "B41", "B82"),
    ),
    mutant(
        "a delivery of a channel that is gone settles on the present one",
        "settlement.py",
        "            if tag.channel is not stream.channel or not stream.alive:\n",
        "            if not stream.alive:\n",
        *("B27", "B26", "B80"),
    ),
    mutant(
        "what was not started is counted",
        "settlement.py",
        "attempts = delivery.attempt if isinstance(outcome, Nack) else delivery.attempt - 1",
        "attempts = delivery.attempt",
        *("B34", "B38", "B93"),
    ),
    mutant(
        "a nack with a delay comes back at once",
        "settlement.py",
        "            if isinstance(outcome, Nack) and outcome.delay > 0:\n",
        "            if False:\n",
        *("B46", "B47", "B55"),
    ),
    # That it goes to dead letters of its own would be no fault that a public call shows: they have no name there.
    mutant(
        "a dead letter that is rejected comes back",
        "settlement.py",
        "                acks.append(tag.number)  # dropped\n",
        "                given_back.append(tag.number)\n",
        "B41",
    ),
    mutant(
        "a delay is rounded down to whole steps",
        "protocol/ladder.py",
        "    return max(1, math.ceil(round(delay / STEP, 6)))\n",
        "    return max(1, math.floor(round(delay / STEP, 6)) - 1)\n",
        *("B47", "B46"),
    ),
    mutant(
        "an expired message is delivered",
        "feed.py",
        "if delivery.expires_in is not None and delivery.expires_in <= 0:",
        "if False:",
        *("B51", "B52"),
    ),
    mutant(
        "what was pushed and not received stays with a consumer that leaves",
        "feed.py",
        "        if returned:\n            self._settlement.settle(stream, returned, deadline)\n",
        "",
        *("B93", "B38", "B34"),
    ),
    mutant(
        "a queue is asked for more than may be pushed",
        "feed.py",
        '("basic_qos", {"prefetch_count": credit})',
        '("basic_qos", {"prefetch_count": credit + 5})',
        *("B35", "B36", "B37"),
    ),
]
