"""One selector thread that watches the names for which this process has waiters.

Each name has a blocking query of its own, for up to `QUERIES` names: Consul allows 200 connections from one address, and
answers 429 to every call beyond, renewals included. Further names share one batched read every `BATCH` seconds. A query names
the index that its waiter has seen, so Consul answers at once if there was a change between the look and the query. An index
that goes back (a restored snapshot) starts anew, as Consul asks.

A lost connection is made again after a backoff. Until then `Busy.retry_after` bounds the wait.
"""

from __future__ import annotations

import collections
import json
import math
import selectors
import threading
from collections.abc import Callable
from typing import Any

from narrowboat.driver.threads import LazyThread
from narrowboat.driver.waking import Nudge
from narrowboat_consul import http
from narrowboat_consul.keys import Keys
from narrowboat_consul.query import Query
from narrowboat_consul.replies import entries
from narrowboat_consul.steps import operation
from narrowboat_consul.transport import Transport

#: The number of queries that are open at once.
QUERIES = 32
#: Seconds between two batched reads of the names that have no query of their own.
BATCH = 0.25
#: Seconds for which one query stays open; Consul adds up to a sixteenth.
PATIENCE = 30.0
#: The backoff before a query that failed is sent again, in seconds: the first and the longest.
PAUSE, PAUSE_MAX = 0.05, 1.0
#: Names in one batched read, which is a transaction: Consul takes 128 members.
TOGETHER = 128


class Watch:
    """One name, and the owners that wait for it."""

    __slots__ = ("index", "keys", "pause", "query", "wakes")

    def __init__(self, keys: Keys, index: int) -> None:
        self.keys = keys
        self.index = index  #: changes up to this index are known
        self.wakes: dict[str, Callable[[], None]] = {}
        self.query: Query | None = None
        self.pause = PAUSE


class Watcher:
    """See the module's text. `arm` and `disarm` come from any thread and never block."""

    def __init__(self, transport: Transport, clock: Callable[[], float]) -> None:
        self._transport = transport
        self._clock = clock
        self._mutex = threading.Lock()
        self._watches: dict[str, Watch] = {}
        self._news: collections.deque[str] = collections.deque()
        self._nudge = Nudge()
        self._thread = LazyThread("narrowboat-consul-watch", self._run, wake=self._nudge.ring)
        # What follows belongs to the thread.
        self._selector = selectors.DefaultSelector()
        self._later: dict[str, float] = {}  # when to send the query of a name again, after a failure
        self._batch: Query | None = None
        self._batch_at = math.inf

    def arm(self, name: str, owner: str, keys: Keys, index: int, wake: Callable[[], None]) -> bool:
        """Wake `owner` at the first change under `keys` after `index`. False: there is no thread that would do so."""
        with self._mutex:
            if self._thread.ended:
                return False
            watch = self._watches.get(name)
            if watch is None:
                watch = self._watches[name] = Watch(keys, index)
            # Who was armed already has been told of everything since; one who comes new may have seen less than we asked for.
            missed = owner not in watch.wakes and index < watch.index
            watch.wakes[owner] = wake
            asked = watch.query is not None
        watched = True
        try:
            self._thread.start()
        except RuntimeError:  # no thread to be had: the waiter looks again by itself, and arms anew
            watched = False
        if not asked:
            self._tell(name)
        if missed:
            wake()
        return watched

    def disarm(self, name: str, owner: str) -> None:
        """Stop waking that owner. Idempotent."""
        with self._mutex:
            watch = self._watches.get(name)
            if watch is None or watch.wakes.pop(owner, None) is None or watch.wakes:
                return
        self._tell(name)

    def close(self) -> None:
        """End the thread and its connections."""
        self._thread.end()
        self._selector.close()
        self._nudge.close()

    def _tell(self, name: str) -> None:
        self._news.append(name)
        self._nudge.ring()

    # -- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._selector.register(self._nudge, selectors.EVENT_READ)
        try:
            while not self._thread.ended:
                for key, _ in self._selector.select(self._pause()):
                    if key.data is None:
                        self._nudge.hush()
                    elif self._known(key.fileobj):
                        self._go_on(key.data)
                self._look()
        finally:
            for key in list(self._selector.get_map().values()):
                if key.data is not None:
                    key.data.socket.close()
            self._selector.unregister(self._nudge)

    def _known(self, connection: Any) -> bool:
        """Whether the query is still registered: an earlier event of the same round may have ended it."""
        try:
            self._selector.get_key(connection)
        except (KeyError, ValueError):
            return False
        return True

    def _pause(self) -> float | None:
        now = self._clock()
        ends = [key.data.ends for key in self._selector.get_map().values() if key.data is not None]
        soonest = min([*ends, *self._later.values(), self._batch_at], default=math.inf)
        return None if soonest == math.inf else max(0.0, soonest - now)

    def _go_on(self, query: Query) -> None:
        connection = query.socket
        self._selector.unregister(connection)
        if not query.step():
            self._selector.register(query.socket, query.events, query)

    def _look(self) -> None:
        """Do what is due: new and dropped names, queries to end or to send again, the batched read."""
        while self._news:
            self._consider(self._news.popleft())
        now = self._clock()
        for key in list(self._selector.get_map().values()):
            if key.data is not None and key.data.ends <= now:
                self._drop(key.data)
                key.data.done(None)
        for name, when in list(self._later.items()):
            if when <= now:
                del self._later[name]
                self._consider(name)
        if self._batch_at <= now:
            self._read_together()

    def _consider(self, name: str) -> None:
        with self._mutex:
            watch = self._watches.get(name)
            gone = watch is not None and not watch.wakes
            if gone:
                del self._watches[name]
        if watch is None:
            return
        if gone:
            self._later.pop(name, None)
            if watch.query is not None:
                self._drop(watch.query)
                watch.query = None
                self._promote()
            return
        if watch.query is None and name not in self._later:
            self._ask(name, watch)

    def _promote(self) -> None:
        """Give a query that has become free to a name without one."""
        with self._mutex:
            waiting = next((name for name, watch in self._watches.items() if watch.query is None and watch.wakes), None)
        if waiting is not None and waiting not in self._later:
            self._news.append(waiting)

    def _open_query_count(self) -> int:
        with self._mutex:
            return sum(watch.query is not None for watch in self._watches.values())

    def _ask(self, name: str, watch: Watch) -> None:
        if self._open_query_count() >= QUERIES:
            self._batch_at = min(self._batch_at, self._clock() + BATCH)
            return
        params = [("recurse", ""), ("index", str(max(1, watch.index))), ("wait", f"{PATIENCE:g}s")]
        data = self._transport.request("GET", f"/v1/kv/{watch.keys.folder}", params)
        watch.query = self._send(
            data, PATIENCE * 17 / 16 + self._transport.timeout, lambda reply: self._told(name, watch, reply)
        )

    def _send(self, data: bytes, patience: float, done: Callable[[http.Reply | None], None]) -> Query | None:
        try:
            query = Query(self._transport, data, self._clock() + patience, done)
        except OSError:
            done(None)
            return None
        self._selector.register(query.socket, query.events, query)
        return query

    def _drop(self, query: Query) -> None:
        if self._known(query.socket):
            self._selector.unregister(query.socket)
        query.socket.close()  # Consul ends the query

    def _told(self, name: str, watch: Watch, reply: http.Reply | None) -> None:
        """A query has ended: with a change, without one, or with an error."""
        watch.query = None
        with self._mutex:
            if self._watches.get(name) is not watch:
                return
        index = _index(reply)
        if index is None:
            self._later[name] = self._clock() + watch.pause
            watch.pause = min(2 * watch.pause, PAUSE_MAX)
            return
        watch.pause = PAUSE
        if index == watch.index:
            self._ask(name, watch)  # its time was up
            return
        watch.index = index if index > watch.index else 0
        self._wake(watch)  # who still waits after a look arms again, and with that the next query is sent

    def _wake(self, watch: Watch) -> None:
        with self._mutex:
            wakes = list(watch.wakes.values())
        for wake in wakes:
            wake()

    def _read_together(self) -> None:
        """Read all names that have no query of their own, at once."""
        with self._mutex:
            left = [watch for watch in self._watches.values() if watch.query is None and watch.wakes]
        self._batch_at = math.inf
        if not left:
            return
        self._batch_at = self._clock() + BATCH
        if self._batch is not None:
            return
        left = left[:TOGETHER]
        operations = [operation("get-tree", watch.keys.folder) for watch in left]
        data = self._transport.request("PUT", "/v1/txn", (), json.dumps(operations).encode())
        self._batch = self._send(data, self._transport.timeout, lambda reply: self._read(left, reply))

    def _read(self, watches: list[Watch], reply: http.Reply | None) -> None:
        self._batch = None
        if reply is None or reply.code != 200:
            return
        seen: dict[str, int] = {}
        try:
            found = entries(reply.body)
        except ValueError:  # none of Consul's: the next read may be
            return
        for each in found:
            folder = each["Key"].rpartition("/")[0] + "/"
            seen[folder] = max(seen.get(folder, 0), each["ModifyIndex"])
        for watch in watches:
            if seen.get(watch.keys.folder, 0) != watch.index:
                # An entry that went leaves a smaller index behind: whoever waits looks, and arms with what it sees.
                watch.index = seen.get(watch.keys.folder, 0)
                self._wake(watch)
        # Those that come after the first `TOGETHER` take their turn at the next read.
        with self._mutex:
            for name in [name for name, watch in self._watches.items() if watch in watches]:
                self._watches[name] = self._watches.pop(name)


def _index(reply: http.Reply | None) -> int | None:
    """The index of a blocking query's reply; None for a reply that says nothing about the names."""
    if reply is None or reply.code not in (200, 404):
        return None
    text = reply.headers.get("x-consul-index", "")
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 20 else None
