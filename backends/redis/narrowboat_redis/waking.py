"""Who waits for messages in this process, and whom to wake for how many.

A script that makes something ready tells it on the source's channel, with the number of messages. A feed that found
nothing is armed; being rung takes it off the list and calls its `wake`. As many feeds are woken as there are messages, the
one that looked last first, because it is the likeliest to be still waiting. A feed that should have looked again by now is
no longer waited on by anybody: it is woken too but not counted, or a message would lie until somebody else happens to look.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple

from narrowboat_redis.listener import Listener
from narrowboat_redis.places import Place
from narrowboat_redis.site import Site

#: A feed is given this much longer than it was told, in seconds, before it is held to be absent: a busy machine is late.
GRACE = 0.25


class _Armed(NamedTuple):
    wake: Callable[[], None]
    until: float  #: when it looks by itself


class Waking:
    """The waiting feeds of one broker and the subscription that wakes them. Any thread may call anything at any time."""

    def __init__(self, site: Site, timeout: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._listener = Listener(site, timeout, self._said, self._ready, self._broken)
        self._mutex = threading.Lock()
        self._waiting: dict[bytes, dict[object, _Armed]] = {}  #: by root
        self._readers: dict[bytes, dict[bytes, set[object]]] = {}  #: by channel, then by root: the feeds that it concerns
        self._known: set[object] = set()

    def arm(self, feed: object, place: Place, wake: Callable[[], None], until: float) -> bool:
        """`feed` is about to look for the last time before it waits; it looks by itself at `until`.

        False: its channels are not heard yet. It is woken when they are.
        """
        with self._mutex:
            if feed not in self._known:
                for channel in place.channels:
                    self._readers.setdefault(channel, {}).setdefault(place.root, set()).add(feed)
                    self._listener.want(channel)
                self._known.add(feed)  # last: an interrupt before it makes the next call begin anew
            feeds = self._waiting.setdefault(place.root, {})
            feeds.pop(feed, None)  # so that it stands last, as the one that looked last
            feeds[feed] = _Armed(wake, until)
        return self._listener.hears(place.channels)

    def disarm(self, feed: object, place: Place) -> None:
        """`feed` does not wait (any more)."""
        with self._mutex:
            feeds = self._waiting.get(place.root)
            if feeds is not None:
                feeds.pop(feed, None)
                if not feeds:
                    del self._waiting[place.root]

    def leave(self, feed: object, place: Place) -> None:
        """`feed` is closed."""
        self.disarm(feed, place)
        with self._mutex:
            for channel in place.channels:
                roots = self._readers.get(channel, {})
                readers = roots.get(place.root, set())
                readers.discard(feed)
                if not readers:
                    roots.pop(place.root, None)
                if not roots:
                    self._readers.pop(channel, None)
                    self._listener.unwant(channel)
            self._known.discard(feed)

    def close(self) -> None:
        """End the subscription."""
        self._listener.close()

    def ring(self, root: bytes, count: int) -> None:
        """Wake as many feeds of the source as are waited on, `count` at most."""
        wakes = []
        now = self._clock()
        with self._mutex:
            feeds = self._waiting.get(root)
            while feeds and count > 0:
                _, armed = feeds.popitem()
                wakes.append(armed.wake)
                count -= armed.until + GRACE >= now
            if feeds is not None and not feeds:
                del self._waiting[root]
        for wake in wakes:
            wake()

    def _said(self, channel: bytes, data: bytes) -> None:
        count = int(data) if data.isdigit() else 1
        for root in self._concerned(channel):
            self.ring(root, count)

    def _ready(self, channel: bytes) -> None:
        """What was said before nobody heard: everybody whom it concerns looks again."""
        self._ring_all(self._concerned(channel))

    def _broken(self) -> None:
        with self._mutex:
            roots = list(self._waiting)
        self._ring_all(roots)

    def _concerned(self, channel: bytes) -> list[bytes]:
        with self._mutex:
            return list(self._readers.get(channel, ()))

    def _ring_all(self, roots: Iterable[bytes]) -> None:
        for root in roots:
            with self._mutex:
                wakes = [armed.wake for armed in self._waiting.pop(root, {}).values()]
            for wake in wakes:
                wake()
