"""The waiters of this process, and the one subscription that wakes all of them.

The subscription has a thread and a connection of its own, begun by the first waiter that finds its lock busy. While there are
waiters, the thread sends a heartbeat for all of them once a second: one script for each shard. The same script repeats
notifications that were lost, and passes on the turn of a dead waiter of another process. If the subscription breaks, all
waiters are woken. They poll twice a second until it stands again.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from narrowboat.contract.locks import Request
from narrowboat.errors import AccessDenied, NarrowboatError
from narrowboat_redis.client import RedisClient
from narrowboat_redis.endpoint import RedisEndpoint
from narrowboat_redis.errors import code_of, no_thread, translate
from narrowboat_redis.names import Keys, NameKeys
from narrowboat_redis.scripts import Packed, script
from narrowboat_redis.subscription import Subscription

#: Seconds between two heartbeats. A waiter counts as dead after 5 s (PATIENCE in locks.lua).
BEAT = 1.0
#: Seconds between two looks of each waiter while there is no subscription.
FALLBACK = 0.5
#: How many owners are remembered that were notified before `arm` named them. The next heartbeat notifies a forgotten one again.
_EARLY = 1024
#: Names in one script at most. The server runs nothing else meanwhile.
_TOGETHER = 100

ALIVE = script("locks.lua", "alive.lua")


class Waiting:
    """The waiters of one provider, by name and owner, and their subscription. From any thread."""

    def __init__(self, endpoint: RedisEndpoint, keys: Keys, client: RedisClient, timeout: float) -> None:
        self._endpoint = endpoint
        self._keys = keys
        self._client = client
        self.provider = os.urandom(8).hex().encode()
        self._channel = keys.channel + self.provider
        self._mutex = threading.Lock()
        self._names: dict[str, dict[str, Callable[[], None]]] = {}
        self._owners: dict[bytes, Callable[[], None]] = {}
        self._early: dict[bytes, bool] = {}
        self.listening = False
        self._refused: AccessDenied | None = None
        self._changed = threading.Condition(threading.Lock())
        self._resting = False
        self._next = 0.0  #: when the next heartbeat is due
        self._hurried = False  #: the next heartbeat is due at once
        self._closed = False
        self._subscription = Subscription(
            endpoint,
            timeout,
            "wake",
            on_message=lambda channel, owner: self._wake((owner,)),
            on_ready=self._ready,
            on_broken=self._broken,
            turn=self._turn,
            quiet=BEAT,
        )

    # -- who waits ------------------------------------------------------------------------------------------------

    def arm(self, request: Request) -> None:
        """Wake the owner from now on. A notification that came since it was queued counts as well."""
        owner = request.owner.encode()
        with self._mutex:
            self._names.setdefault(request.name, {})[request.owner] = request.wake
            self._owners[owner] = request.wake
            early = self._early.pop(owner, False)
        if early:
            request.wake()

    def disarm(self, name: str, owner: str) -> None:
        """Stop waking the owner. Idempotent."""
        if not self._owners:
            return
        with self._mutex:
            self._owners.pop(owner.encode(), None)
            owners = self._names.get(name)
            if owners is not None:
                owners.pop(owner, None)
                if not owners:
                    del self._names[name]

    def _wake(self, owners: Iterable[bytes]) -> None:
        for owner in owners:
            with self._mutex:
                wake = self._owners.get(owner)
                if wake is None:
                    # It was notified before its answer reached us; or it has left.
                    self._early[owner] = True
                    while len(self._early) > _EARLY:
                        del self._early[next(iter(self._early))]
            if wake is not None:
                wake()

    def _wake_names(self, names: Iterable[str]) -> None:
        with self._mutex:
            wakes = [wake for name in names for wake in self._names.get(name, {}).values()]
        for wake in wakes:
            wake()

    # -- the subscription -----------------------------------------------------------------------------------------

    def listen(self, timeout: float) -> bool:
        """Make sure that there is a subscription. True: it was made just now, and a caller that looked before has to look
        again. False: it stood already, or cannot be made now. Raises `AccessDenied` where it never can be made.
        """
        if self.listening:
            if self._resting:
                self._subscription.hurry()
            return False
        with self._changed:
            if self._refused is not None:
                self._subscription.hurry()  # the right may have been granted meanwhile: the next caller will know
                raise self._refused
            try:
                begun = self._subscription.want(self._channel)
            except RuntimeError as error:
                raise no_thread(error, self._endpoint) from error
            if begun:
                self._changed.wait_for(lambda: self.listening or self._refused is not None or self._closed, timeout)
            if self._refused is not None:
                raise self._refused
            return self.listening

    def hurry(self) -> None:
        """Let the thread remove dead waiters that are ahead of ours."""
        self._hurried = True
        self._subscription.hurry()

    def close(self) -> None:
        """End the thread and its connection. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._subscription.close()

    def _ready(self, channel: bytes) -> None:
        with self._changed:
            self.listening = True
            self._refused = None
            self._changed.notify_all()
        self._next = 0.0
        self._wake_names(list(self._names))  # notifications before this moment were lost

    def _turn(self) -> float | None:
        """Send the heartbeat, if it is due. Returns the seconds until the next one; None while nobody waits."""
        if not self._names:
            self._resting = True  # before the look: a waiter that comes now calls `hurry`
            if not self._names:
                return None
        self._resting = False
        now = time.monotonic()
        if now >= self._next or self._hurried:
            self._hurried = False
            self._hurried |= self._beat()
            self._next = now + BEAT
        return 0.0 if self._hurried else max(0.0, self._next - time.monotonic())

    def _beat(self) -> bool:
        """Send one heartbeat. A failure does no harm: the next one comes in a second.

        True: more dead waiters are ahead of ours than one call drops, so the next heartbeat is best sent at once.
        """
        shards: dict[int, list[tuple[str, NameKeys]]] = {}
        for name in list(self._names):
            keys = self._keys.of(name)
            shards.setdefault(keys.shard, []).append((name, keys))
        calls: list[Packed] = []
        asked: list[list[str]] = []
        for members in shards.values():
            for start in range(0, len(members), _TOGETHER):
                part = members[start : start + _TOGETHER]
                each_of = [key for _, each in part for key in (each.held, each.queue, each.told)]
                calls.append(ALIVE([part[0][1].alive, *each_of], [self.provider, self._keys.channel]))
                asked.append([name for name, _ in part])
        try:
            answers: list[Any] = self._client.run(calls, doing="saying that waiters are alive")
        except NarrowboatError:
            return False
        hurry = False
        for names, answer in zip(asked, answers, strict=True):
            if isinstance(answer, list):
                known, owners, queues, more = answer
                hurry = hurry or any(more)
                self._wake(owners)
                # We were taken for dead, or a queue is gone: the places are lost, and all waiters have to ask again.
                self._wake_names([name for name, queue in zip(names, queues, strict=True) if not known or not queue])
        return hurry

    def _broken(self, error: BaseException) -> None:
        with self._changed:
            self.listening = False
            found = translate(error, self._endpoint, doing="subscribing")
            if code_of(error) == "NOPERM" and isinstance(found, AccessDenied):
                self._refused = found
            self._changed.notify_all()
        self._wake_names(list(self._names))
