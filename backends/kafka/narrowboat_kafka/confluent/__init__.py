"""A client of Kafka on confluent-kafka, which is librdkafka: reading and writing is done by its own threads, in C.

It stands on confluent-kafka's public names alone. Each handle of the library (`Consumer`, `Producer`, `AdminClient`) belongs
to one thread: since 2.16 a second thread that calls a consumer waits until the first is done with it. So a member has two
consumers. One is the member: it joins, commits and reads nothing (`group.py`). The other reads partitions and is in no
group (`fetcher.py`), so that a commit never waits for a fetch, and a rebalance for no message.

This file imports nothing of the library; `client.py` does.
"""

from __future__ import annotations

#: The first version that has all that is used here: the administration takes a logger since then.
LOWEST = (2, 5, 0)
#: The first version that has share groups.
LOWEST_SHARE = (2, 15, 0)
