"""Notices topics that are made later: retry topics, which any process makes when it first needs one.

A consumer that subscribed to a topic that is not there would ask for it ten times a second. Here one request asks for all
that are awaited, twice a second, and only while there are any. Everything runs on the loop.
"""

from __future__ import annotations

from collections.abc import Callable

from narrowboat_kafka.client import KafkaError
from narrowboat_kafka.connections import Connections

#: Seconds between two looks: how late the first delayed message of a source may be noticed.
_EVERY = 0.5


class TopicWatch:
    """See the module's text."""

    def __init__(self, connections: Connections) -> None:
        self._admin = connections.admin
        self._loop = connections.loop
        self._awaited: dict[str, dict[object, Callable[[], None]]] = {}
        self._running = False
        self._wakeup = self._loop.new_wakeup()

    def want(self, topic: str, who: object, found: Callable[[], None]) -> None:
        """Call `found`, which must not block, once the topic is there. From any thread."""

        def begin() -> None:
            self._awaited.setdefault(topic, {})[who] = found
            if self._running:
                self._wakeup.now()
            else:
                self._running = True
                self._loop.call_soon(self._run)

        self._loop.call_soon_threadsafe(begin)

    def forget(self, topic: str, who: object) -> None:
        """Undo `want`. On the loop's thread."""
        waiting = self._awaited.get(topic)
        if waiting is not None:
            waiting.pop(who, None)
            if not waiting:
                del self._awaited[topic]

    def look(self, topic: str) -> None:
        """Look for the topic now: it may have been made just now. From any thread."""
        if topic in self._awaited:
            self._wakeup.notify()

    async def _run(self) -> None:
        while self._awaited:
            try:
                await self._look()
            except (KafkaError, OSError):
                pass  # the server is away: the next look may find it
            if self._awaited:
                await self._wakeup(_EVERY)
        self._running = False

    async def _look(self) -> None:
        for topic in await self._admin.metadata(list(self._awaited)):
            if topic.ready:
                for found in self._awaited.pop(topic.name, {}).values():
                    found()
