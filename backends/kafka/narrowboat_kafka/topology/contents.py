"""What is in a source, as of the last commits of its group: counted, and dropped. Safe from any thread but the loop's.

What a consumer of ours has claimed since its last commit is not known here; `member/` knows that of its own partitions.
"""

from __future__ import annotations

from narrowboat.contract import Address, Depth, Kind
from narrowboat.driver.sources import has_dead_letters
from narrowboat.errors import Conflict
from narrowboat_kafka.client import Committed, Edge, TopicPartition
from narrowboat_kafka.format import ledger as ledgers
from narrowboat_kafka.format.ledger import Ledger
from narrowboat_kafka.options import SCHEME
from narrowboat_kafka.topology import names
from narrowboat_kafka.topology.offsets import Offsets
from narrowboat_kafka.topology.topics import Topics

#: What is known of each partition, and where each ends.
Known = dict[TopicPartition, tuple[Ledger, int]]


class Contents:
    """See the module's text. `prefix`: the namespace."""

    def __init__(self, topics: Topics, offsets: Offsets, prefix: str) -> None:
        self._topics = topics
        self._offsets = offsets
        self._prefix = prefix

    def depth(self, address: Address) -> Depth:
        """How many messages are ready, handed out as of the last commit, waiting for their time, and dead."""
        known = self._known(address)
        if address.kind is Kind.TOPIC:
            return Depth(None, None, _count(known), None)
        retry = names.retry(address, self._prefix)
        ready = out = delayed = 0
        for tp, (ledger, end) in known.items():
            waiting, taken = ledger.counts(end)
            out += taken
            if tp.topic == retry:
                delayed += waiting
            else:
                ready += waiting
        return Depth(ready, out, delayed, _count(self._known(address.dead)) if has_dead_letters(address) else 0)

    def purge(self, address: Address) -> int:
        """Drop what is not handed out, of a source without consumers; how many. `Conflict` where there are some."""
        return self._purge(address.path, self._group(address), self._known(address))

    def purge_waiting(self, path: str, topic: str) -> int:
        """The same with what waits in `topic`, read by the group of that name."""
        return self._purge(path, topic, self._known_of(topic, [topic]))

    def _purge(self, path: str, group: str, known: Known) -> int:
        dropped, offsets = 0, {}
        for tp, (ledger, end) in known.items():
            dropped += ledger.drop(end, {offset for offset, claim in ledger.claims.items() if claim.out})
            offsets[tp] = Committed(ledger.base, ledgers.encode(ledger))
        if not self._offsets.commit(group, offsets):
            raise Conflict(
                f"{path!r} cannot be purged while other programs consume it: only they know what they hold. "
                "Stop them, or purge where it is consumed",
                backend=SCHEME,
            )
        return dropped

    def _group(self, address: Address) -> str:
        return (names.delayed if address.kind is Kind.TOPIC else names.group)(address, self._prefix)

    def _known(self, address: Address) -> Known:
        """What is known of each partition of a source, and where it ends; of a topic, of what waits to be published there."""
        if address.kind is Kind.TOPIC:
            topics = [names.delayed(address, self._prefix)]
        else:
            topics = [names.topic(address, self._prefix), names.retry(address, self._prefix)]
        return self._known_of(self._group(address), topics, begun=address.kind is not Kind.SUBSCRIPTION)

    def _known_of(self, group: str, topics: list[str], *, begun: bool = True) -> Known:
        """`begun`: otherwise the group may not have, and then it has no messages in the first topic."""
        partitions = self._topics.partitions(*topics)
        committed = self._offsets.committed(group, partitions)
        if not begun:
            partitions = [tp for tp in partitions if tp in committed or tp.topic == topics[-1]]
        ends = self._offsets.at(partitions, Edge.LATEST)
        unread = self._offsets.at([tp for tp in partitions if tp not in committed], Edge.EARLIEST)
        return {
            tp: (ledgers.decode(*committed[tp]) if tp in committed else Ledger(unread[tp]), end) for tp, end in ends.items()
        }


def _count(known: Known) -> int:
    """All messages that are not settled."""
    return sum(sum(ledger.counts(end)) for ledger, end in known.values())
