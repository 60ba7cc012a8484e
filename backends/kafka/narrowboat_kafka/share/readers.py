"""The members that one consumer has in a share group, and what they were given and it has not asked for yet.

One member waits until its batch is settled as a whole; a consumer whose handlers are slow would stand still behind one message.
So it has several, each with a batch of its own, made when one is needed: in sizes that fit what is asked for, since what a
member is given is locked for it alone. They ask only while the consumer does.

What a member was given beyond that (the server hands out together what was published together) lies here for a moment, and
goes back to the queue when nobody wants it: another consumer may.

One thread makes them, asks, and ends them. Settling is on the caller's thread (`reader.py`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from narrowboat_kafka.client import KafkaError
from narrowboat_kafka.share.locked import Locked
from narrowboat_kafka.share.reader import Reader

#: Seconds for which a look lasts that finds nothing, at least and at most; three times that where a member has to join.
_LOOK, _SLOW = 0.3, 2.0
#: Seconds for which members stay that nobody asks any more.
_GRACE = 2.0
#: Seconds for which somebody who asked and got nothing is looked for: by then he asks again, or does not want it any more.
ASKED = 0.8
#: Seconds for which what nobody takes lies here, at least and at most: three times what this consumer lets pass between two
#: calls. What is given back sooner than it calls again comes to it over and over, and is never taken.
_SURPLUS, _KEPT = 1.0, 5.0
#: Members of one consumer, and messages of one batch, at most.
_MOST, _LARGEST = 8, 512
#: Seconds for which something is asked for in vain before one more member is made.
_PATIENCE = 0.05
#: Seconds after which a member that had nothing to do leaves, unless it is the only one.
_IDLE = 10.0
#: Seconds for which nothing comes before we look whether the topic is the same.
_DOUBT = 2.0
#: Seconds between two tries after an error, growing to the second.
_AGAIN = (0.1, 1.0)


class Readers:
    """See the module's text.

    `make`: a member that asks for so many at a time. `sift`: takes out what is for no consumer. `give_back`: what nobody
    wants. `identify`: which topic it is, None while there is none; asked now and then while nothing comes, because the library
    says nothing of that.
    """

    def __init__(
        self,
        make: Callable[[int], Reader],
        wake: Callable[[], None],
        *,
        sift: Callable[[Sequence[Locked]], list[Locked]],
        give_back: Callable[[Sequence[Locked]], object],
        identify: Callable[[], object],
    ) -> None:
        self.failure: Exception | None = None  #: why there may be nothing
        self._make = make
        self._wake = wake
        self._sift = sift
        self._give_back = give_back
        self._identify = identify
        self._identity: object = None
        self._readers: list[Reader] = []
        self._found: deque[Locked] = deque()
        self._news = threading.Condition()
        self._wanted = 0
        self._wanted_since = self._wanted_until = 0.0
        self._called = 0.0  #: when a call of `take` ended last, and seconds from there to the next one
        self._apart = 0.0
        self._begun = self._ended = 0  #: looks
        self._look = _LOOK  #: seconds of one
        self._checked = time.monotonic()
        self._pause = _AGAIN[0]
        self._leaving = self._ending = False
        self._thread = threading.Thread(target=self._run, name="narrowboat-kafka-share", daemon=True)

    def begin(self, seconds: float) -> None:
        """Join; and wait so long until something is there, where the server takes that long to give a new group anything."""
        self._identity = self._ask()
        reader = self._make(1)
        self._readers.append(reader)
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._found:
            self._found.extend(self._sift(reader.poll(self._look)))
        self._thread.start()

    def abandon(self) -> None:
        """Undo a `begin` that did not return."""
        self._ending = True
        self._close_all()

    # -- from any thread ------------------------------------------------------------------------------------------

    def take(self, limit: int) -> list[Locked]:
        """Up to `limit` of what is there, once somebody has looked."""
        with self._news:
            now = time.monotonic()
            if self._called:
                self._apart = now - self._called
            try:
                return self._take(limit, now)
            finally:
                self._called = time.monotonic()

    def _take(self, limit: int, now: float) -> list[Locked]:
        found = self._pop(limit)
        if found or self._leaving:
            return found
        if now >= self._wanted_until or not self._wanted:
            self._wanted_since = now
        self._wanted, self._wanted_until = limit, now + ASKED
        look = self._begun + 1
        self._news.notify_all()
        self._news.wait_for(lambda: self._found or self._ended >= look or self._leaving, 4 * self._look)
        found = self._pop(limit)
        if not found and self.failure is not None:
            raise self.failure
        return found

    def _pop(self, limit: int) -> list[Locked]:
        found: list[Locked] = []
        while self._found and len(found) < limit:
            each = self._found.popleft()
            if each.ours:
                found.append(each)
        return found

    def put_back(self, taken: list[Locked]) -> None:
        """Undo `take`."""
        self._found.extendleft(reversed(taken))

    def leave(self) -> None:
        """Ask for nothing more, and give back what nobody has taken."""
        with self._news:
            self._leaving = True
            self._news.notify_all()

    def end(self, seconds: float) -> None:
        """The same, and leave the group; within so long, if the server does not answer."""
        with self._news:
            self._leaving = self._ending = True
            self._news.notify_all()
        if self._thread.ident is not None:
            self._thread.join(seconds)

    # -- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ending:
            try:
                self._step()
            except Exception as error:  # whatever it is: the next try may succeed
                with self._news:
                    self.failure = error
                    self._ended = self._begun
                    self._news.notify_all()
                    self._wake()
                    self._news.wait_for(lambda: self._ending, self._pause)
                self._pause = min(_AGAIN[1], 2 * self._pause)
        with contextlib.suppress(Exception):
            self._return_surplus(0.0)
        self._close_all()

    def _close_all(self) -> None:
        for reader in self._readers:
            with contextlib.suppress(Exception):  # what it has comes back when its connection or its locks end
                reader.close()

    def _step(self) -> None:
        with self._news:
            self._news.wait_for(lambda: self._is_wanted or self._ending or (self._leaving and self._found), self._idle_for())
            wanted = self._wanted if self._is_wanted else 0
        self._return_surplus(0.0 if self._leaving else min(_KEPT, max(_SURPLUS, 3 * self._apart)))
        for each in self._readers:
            each.let_go()
        if self._ending or not wanted:
            self._admit(self._hear_out(None))
            self._retire()
            return
        with self._news:
            self._begun += 1
        reader = self._choose(wanted)
        found = self._hear_out(reader)
        if reader is None:
            time.sleep(_PATIENCE / 5 if self._identity is not None else self._look)  # one is settled soon, or one more is made
        elif not found:
            found = self._sift(reader.poll(3 * self._look if reader.young else self._look))
            self.failure, self._pause = None, _AGAIN[0]
        self._ended = self._begun
        self._admit(found)
        if reader is not None and not found and time.monotonic() > self._checked + _DOUBT:
            self._look_whether_same()

    def _hear_out(self, reader: Reader | None) -> list[Locked]:
        """What came to requests that were under way when others than `reader` ceased to ask, which leave with that.

        A request ends later than the wait for it, and what comes to it is locked for a member that nobody asks. Where nothing
        is wanted any more, the last one leaves as well, after a while in which somebody may ask again.
        """
        now = time.monotonic()
        found: list[Locked] = []
        for each in [each for each in self._readers if each.free and each is not reader and 0 < each.asked < now - self._look]:
            came = self._sift(each.poll(0.0))
            found += came
            if not came and (reader is not None or now > self._wanted_until + _GRACE):
                self._readers.remove(each)
                each.close()
        return found

    @property
    def _is_wanted(self) -> bool:
        return bool(self._wanted) and not self._found and not self._leaving and time.monotonic() < self._wanted_until

    def _idle_for(self) -> float:
        if any(reader.free and reader.asked for reader in self._readers):
            return self._look
        return 0.2 if self._found or any(not reader.free for reader in self._readers) else 2.0

    def _admit(self, found: list[Locked]) -> None:
        with self._news:
            self._found.extend(found)
            if found:
                self._wanted = 0
            self._news.notify_all()
        if found:
            self._checked = time.monotonic()
            self._wake()

    def _look_whether_same(self) -> None:
        """A topic may have been deleted, and made anew: then these are members for one that is gone."""
        self._checked = time.monotonic()
        identity = self._ask()
        if identity != self._identity:
            self._identity = identity
            gone, self._readers = self._readers, []
            for reader in gone:
                with contextlib.suppress(KafkaError):  # what it has is gone
                    reader.close()

    def _ask(self) -> object:
        """Which topic it is; and how long a look has to last: the library does not say that a server has answered to one."""
        begun = time.monotonic()
        found = self._identify()
        self._look = min(_SLOW, max(_LOOK, 4 * (time.monotonic() - begun)))
        return found

    def _choose(self, wanted: int) -> Reader | None:
        """One that is free and asks for no more than is wanted; a new one where there is none, and none comes free soon."""
        if self._identity is None:
            self._look_whether_same()
            return None
        free = [reader for reader in self._readers if reader.free]
        fitting = [reader for reader in free if reader.size <= wanted]
        best = max(fitting, key=lambda reader: reader.size, default=None)
        size = min(_LARGEST, 1 << (wanted.bit_length() - 1))
        if best is not None and best.size >= size:
            return best
        if len(self._readers) >= _MOST:
            return best or min(free, key=lambda reader: reader.size, default=None)
        if best is None and time.monotonic() < self._wanted_since + _PATIENCE:
            return None
        self._readers.append(self._make(size))
        return self._readers[-1]

    def _return_surplus(self, age: float) -> None:
        """Give back what has lain here for so long: others may want it."""
        with self._news:
            old = time.monotonic() - age
            surplus = [each for each in self._found if each.offered <= old or not each.ours]
            gone = set(surplus)
            if gone:
                self._found = deque(each for each in self._found if each not in gone)
        if surplus:
            self._give_back(surplus)

    def _retire(self) -> None:
        """Let members leave that have had nothing to do for a while."""
        for reader in list(self._readers):
            if len(self._readers) > 1 and reader.free and time.monotonic() > reader.used + _IDLE:
                self._readers.remove(reader)
                reader.close()
