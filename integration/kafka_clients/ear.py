"""A member of a group, as the tests of a client use it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from integration.kafka_clients.use import TIMEOUT
from narrowboat_kafka.client import Committed, KafkaError, TopicPartition


class Ear:
    """Begins each partition where its group was, commits what it has read, and writes down what it hears."""

    def __init__(self, client: Any, group: str, *topics: str) -> None:
        self.ending = False
        self.client = client
        self.topics = topics
        self.records: list[Any] = []
        self.next: dict[TopicPartition, int] = {}
        self.heard: list[tuple[str, Any]] = []
        self.held: set[TopicPartition] = set()
        self._wakeup: Any = None
        self._closed = False
        self.member = client.member(group, self)
        client.loop.call(self._begin)

    async def _begin(self) -> None:
        self._wakeup = self.client.loop.new_wakeup()
        self.member.subscribe(self.topics)
        until = time.monotonic() + TIMEOUT
        while True:
            try:
                await self.member.hear_of_topics(TIMEOUT)
                break
            except KafkaError as error:  # of a server that resumes: its metadata may name no broker yet
                if not error.retriable or time.monotonic() >= until:
                    raise
            await self.client.loop.sleep(0.1)
        self.client.loop.call_soon(self._run)

    async def _run(self) -> None:
        while not self._closed:
            try:
                await self.member.step(TIMEOUT)
                await self.member.fetch(0.2)
            except KafkaError as error:
                self.heard.append(("failed", error))
            for tp, records in self.member.read(100).items():
                self.records += records
                self.next[tp] = records[-1].offset + 1
            await self._wakeup(0.05)

    async def assigned(self, partitions: list[TopicPartition]) -> None:
        found = await self.member.committed(partitions, TIMEOUT)
        self.heard.append(("assigned", found))
        for tp in partitions:
            self.next[tp] = found[tp].offset if tp in found else 0
            self.member.seek(tp, self.next[tp])
            self.held.add(tp)

    async def revoked(self, partitions: list[TopicPartition]) -> None:
        self.heard.append(("revoked", list(partitions)))
        await self.member.commit({tp: Committed(self.next[tp], "as I left it") for tp in partitions}, TIMEOUT)
        self.held.difference_update(partitions)

    async def lost(self, partitions: list[TopicPartition]) -> None:
        self.heard.append(("lost", list(partitions)))
        self.held.difference_update(partitions)

    def news(self) -> None:
        if self._wakeup is not None:
            self._wakeup.now()

    def unreadable(self, *what: Any) -> None:
        self.heard.append(("unreadable", what))

    def passed(self, tp: TopicPartition, end: int) -> None:
        self.heard.append(("passed", (tp, end)))

    def told(self, what: str) -> list[Any]:
        return [each for kind, each in self.heard if kind == what]

    def do(self, name: str, *arguments: Any) -> Any:
        """Call the member, a plain method or a coroutine, on the loop."""

        async def call() -> Any:
            found = getattr(self.member, name)(*arguments)
            return await found if asyncio.iscoroutine(found) or hasattr(found, "__await__") else found

        return self.client.loop.call(call)

    def close(self, seconds: float = TIMEOUT) -> None:
        self._closed = self.ending = True
        self.member.close(seconds)


def offsets(ear: Ear) -> list[tuple[int, int]]:
    return [(each.partition, each.offset) for each in ear.records]
