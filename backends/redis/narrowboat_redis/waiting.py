"""Who waits in this process, and the one subscription by which all of them are woken.

The subscription has a thread and a connection of its own, begun by the first waiter that finds its lock busy. Once a second,
while somebody waits, the thread says for all waiters of the provider that they are alive: one script for each shard. The
same script tells again what got lost, and passes on what a dead waiter of another process did not take. Where the
subscription breaks, everybody is woken to look for themselves, and looks twice a second until it stands again.
"""

from __future__ import annotations

import os
import selectors
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import redis

from narrowboat.contract.locks import Request
from narrowboat.driver.waking import Nudge
from narrowboat.errors import AccessDenied, NarrowboatError
from narrowboat_redis.connection import Line, find_primary, open_line
from narrowboat_redis.errors import code_of, no_thread, translate
from narrowboat_redis.keys import Keys, NameKeys
from narrowboat_redis.nodes import FAILURES
from narrowboat_redis.resp import ErrorReply, pack
from narrowboat_redis.scripts import Packed, script
from narrowboat_redis.site import Site, Topology
from narrowboat_redis.wire import Wire

#: Seconds between two signs of life. A waiter counts as dead after 5 s (PATIENCE in locks.lua).
BEAT = 1.0
#: Seconds between two looks of each waiter while there is no subscription.
FALLBACK = 0.5
#: Seconds for which the subscription may be silent after it was asked for a sign.
_SILENCE = 2.0
#: Seconds before the subscription is made again, at first and at most.
_AGAIN, _AGAIN_MAX = 0.05, 2.0
#: Owners that were told before we knew of them: how many are remembered. One that is forgotten is told again with a beat.
_EARLY = 1024
#: Names in one script at most: others wait while it runs.
_TOGETHER = 100

ALIVE = script("locks.lua", "alive.lua")


class Waiting:
    """The waiters of one provider, by name and owner, and their subscription. From any thread."""

    def __init__(self, site: Site, keys: Keys, wire: Wire, timeout: float) -> None:
        self._site = site
        self._keys = keys
        self._wire = wire
        self._timeout = timeout
        self.provider = os.urandom(8).hex().encode()
        self._channel = keys.channel + self.provider
        self._mutex = threading.Lock()
        self._names: dict[str, dict[str, Callable[[], None]]] = {}
        self._owners: dict[bytes, Callable[[], None]] = {}
        self._early: dict[bytes, bool] = {}
        self.listening = False
        self._refused: AccessDenied | None = None
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition(threading.Lock())
        self._nudge = Nudge()
        self._resting = False
        self._hurried = False  #: to say at once that we are alive
        self._closed = False

    # -- who waits ------------------------------------------------------------------------------------------------

    def arm(self, request: Request) -> None:
        """Wake the owner from now on. What was said to it since it was queued, before this, counts as well."""
        owner = request.owner.encode()
        with self._mutex:
            self._names.setdefault(request.name, {})[request.owner] = request.wake
            self._owners[owner] = request.wake
            early = self._early.pop(owner, False)
        if early:
            request.wake()

    def disarm(self, name: str, owner: str) -> None:
        """Forget the owner. Idempotent."""
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
                    # Said between its place in the queue and the answer that tells us of it; or to one who has left.
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
        """Somebody has to wait: see that there is a subscription. True: it was made by now, and whoever looked before has
        to look again. False: it stood already, or cannot be made just now. Raises `AccessDenied` where it never can be.
        """
        if self.listening:
            if self._resting:
                self._nudge.ring()
            return False
        with self._changed:
            if self._refused is not None:
                self._nudge.ring()  # it may have been allowed meanwhile: whoever comes next will know
                raise self._refused
            # An interrupt can strike between making a thread and starting it: look again each time.
            begun = self._thread is not None and self._thread.is_alive()
            if self._closed:
                return False
            if not begun:
                self._thread = threading.Thread(target=self._run, name=f"narrowboat-{self._site.scheme}-wake", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError as error:
                    raise no_thread(error, self._site) from error
                self._changed.wait_for(lambda: self.listening or self._refused is not None or self._closed, timeout)
            if self._refused is not None:
                raise self._refused
            return self.listening

    def hurry(self) -> None:
        """There is something to be cleared away in front of our waiters: the thread does it."""
        self._hurried = True
        self._nudge.ring()

    def close(self) -> None:
        """End the thread and its connection. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        self._nudge.ring()
        if thread is not None and thread.ident is not None and thread is not threading.current_thread():
            thread.join(self._timeout)
        self._nudge.close()

    def _run(self) -> None:
        pause = _AGAIN
        while not self._closed:
            line = None
            try:
                line = self._subscribe()
                pause = _AGAIN
                self._stand(line)
            except (NarrowboatError, *FAILURES) as error:
                self._broken(error)
            finally:
                self.listening = False
                if line is not None:
                    line.close()
            if not self._closed:
                self._rest(pause)
                pause = min(2 * pause, _AGAIN_MAX)

    def _subscribe(self) -> Line:
        site = self._site
        timeout = min(self._timeout, _SILENCE)
        where = find_primary(site, timeout) if site.topology is Topology.SENTINEL else None
        failed: BaseException | None = None
        for address in [where] if where is not None else site.hosts:
            try:
                line = open_line(site, address, timeout)
            except (OSError, redis.RedisError) as error:
                failed = failed or error
                continue
            try:
                (reply,) = line.ask(pack(b"SUBSCRIBE", self._channel))
                if isinstance(reply, ErrorReply):
                    raise reply
            except BaseException:
                line.close()
                raise
            return line
        raise failed or ErrorReply("CLUSTERDOWN no node")

    def _stand(self, line: Line) -> None:
        """Listen until it breaks or ends."""
        with self._changed:
            self.listening = True
            self._refused = None
            self._changed.notify_all()
        self._wake_names(list(self._names))  # whatever was said before nobody heard
        with selectors.DefaultSelector() as selector:
            selector.register(line.fileno(), selectors.EVENT_READ)
            selector.register(self._nudge, selectors.EVENT_READ)
            self._hear(line, selector)

    def _hear(self, line: Line, selector: selectors.BaseSelector) -> None:
        mouth, ears = line.fileno(), self._nudge.fileno()
        beat, asked = time.monotonic(), 0.0
        while not self._closed:
            now = time.monotonic()
            if not self._names:
                self._resting = True  # before the look: whoever comes now rings
            if self._names:
                self._resting = False
                if now >= beat or self._hurried:
                    self._hurried = False
                    if not asked:
                        asked = now
                        line.send(_PING)
                    self._hurried = self._beat()
                    beat = now + BEAT
                    now = time.monotonic()
            if asked and now - asked > _SILENCE:
                raise TimeoutError("the subscription is silent")
            wait = None if self._resting and not asked else max(0.0, min(beat, asked + _SILENCE if asked else beat) - now)
            if self._hurried:
                wait = 0.0
            if not line.pending():
                ready = [key.fd for key, _ in selector.select(wait)]
                if ears in ready:
                    self._nudge.hush()
                if mouth not in ready:
                    continue
            for reply in line.read():
                if isinstance(reply, list) and reply and reply[0] == b"message":
                    self._wake((reply[2],))
                elif isinstance(reply, list) and reply and reply[0] == b"pong":
                    asked = 0.0

    def _beat(self) -> bool:
        """Say that our waiters are alive. A failure is nobody's loss: it is said again in a second.

        True: there are more dead waiters in front of ours than a call drops, so it is best said again at once.
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
            answers: list[Any] = self._wire.run(calls, doing="saying that waiters are alive")
        except NarrowboatError:
            return False
        hurry = False
        for names, answer in zip(asked, answers, strict=True):
            if isinstance(answer, list):
                known, owners, queues, more = answer
                hurry = hurry or any(more)
                self._wake(owners)
                # Where we were taken for dead, or a queue is gone, the places are lost: everybody has to ask again.
                self._wake_names([name for name, queue in zip(names, queues, strict=True) if not known or not queue])
        return hurry

    def _broken(self, error: BaseException) -> None:
        with self._changed:
            self.listening = False
            found = translate(error, self._site, doing="subscribing") if not isinstance(error, NarrowboatError) else error
            if code_of(error) == "NOPERM" and isinstance(found, AccessDenied):
                self._refused = found
            self._changed.notify_all()
        if not self._closed:
            self._wake_names(list(self._names))

    def _rest(self, seconds: float) -> None:
        """Until it may be tried again, or there is a reason to hurry."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._nudge, selectors.EVENT_READ)
            selector.select(seconds)
        self._nudge.hush()


_PING = pack(b"PING")
