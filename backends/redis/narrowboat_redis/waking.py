"""The feeds of this process that wait for messages, and the subscription that wakes them.

A script that makes messages ready publishes their number on the source's channel. `Bell` decides which feeds that wakes. A
topic's channel concerns the feeds of several sources.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable

from narrowboat.driver.waking import Bell
from narrowboat_redis.endpoint import RedisEndpoint
from narrowboat_redis.streams import StreamKeys
from narrowboat_redis.subscription import Subscription


class Waking:
    """The waiting feeds of one broker. Any thread may call anything at any time."""

    def __init__(self, endpoint: RedisEndpoint, timeout: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._bell: Bell[bytes] = Bell()  #: by root
        self._mutex = threading.Lock()
        self._readers: dict[bytes, dict[bytes, set[object]]] = {}  #: by channel, then by root: the feeds that it concerns
        self._known: set[object] = set()
        self._subscription = Subscription(
            endpoint,
            timeout,
            "ear",
            on_message=self._said,
            on_ready=self._ready,
            on_broken=lambda error: self._bell.ring_all(),
        )

    def arm(self, feed: object, keys: StreamKeys, wake: Callable[[], None], until: float) -> bool:
        """Wake `feed` from now on; it is about to look for the last time, and looks again by itself at `until`.

        False: its channels are not heard yet. It is woken when they are.
        """
        with self._mutex:
            if feed not in self._known:
                for channel in keys.channels:
                    self._readers.setdefault(channel, {}).setdefault(keys.root, set()).add(feed)
                    with contextlib.suppress(RuntimeError):  # no thread left: the feed polls, and its next call tries again
                        self._subscription.want(channel)
                self._known.add(feed)  # last: an interrupt before it makes the next call begin anew
        self._bell.arm(keys.root, feed, wake, until)
        return self._subscription.hears(keys.channels)

    def disarm(self, feed: object, keys: StreamKeys) -> None:
        """Stop waking `feed` until its next `arm`."""
        self._bell.disarm(keys.root, feed)

    def leave(self, feed: object, keys: StreamKeys) -> None:
        """`feed` is closed."""
        self.disarm(feed, keys)
        with self._mutex:
            for channel in keys.channels:
                roots = self._readers.get(channel, {})
                readers = roots.get(keys.root, set())
                readers.discard(feed)
                if not readers:
                    roots.pop(keys.root, None)
                if not roots:
                    self._readers.pop(channel, None)
                    self._subscription.unwant(channel)
            self._known.discard(feed)

    def close(self) -> None:
        """End the subscription."""
        self._subscription.close()

    def ring(self, root: bytes, count: int) -> None:
        """Wake up to `count` of the source's feeds, of those that consumers wait on."""
        self._bell.ring(root, count, self._clock())

    def _said(self, channel: bytes, data: bytes) -> None:
        count = int(data) if data.isdigit() else 1
        for root in self._concerned(channel):
            self.ring(root, count)

    def _ready(self, channel: bytes) -> None:
        """Notifications before this moment were lost: wake all feeds of the channel."""
        for root in self._concerned(channel):
            self.ring(root, sys.maxsize)

    def _concerned(self, channel: bytes) -> list[bytes]:
        with self._mutex:
            return list(self._readers.get(channel, ()))
