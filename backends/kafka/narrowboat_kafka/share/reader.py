"""One member of a share group with the batch that it was given, settled by any number of threads.

A member gets its next batch when the last one is settled as a whole (`free`). Threads that settle at a time share one request:
whoever comes first sends what all have brought. A message whose lock ends unsettled is let go of by `let_go`; the server has
given it to others by then, and its answer about one such message would be the answer about all that are told with it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

from narrowboat_kafka.client import Code, KafkaError
from narrowboat_kafka.format.stored import Stored
from narrowboat_kafka.share.locked import Answer, Locked
from narrowboat_kafka.share.locks import too_old
from narrowboat_kafka.share.seam import Sharer, Verdict

#: Seconds in which no server answers, and for which one keeps a request, with what it takes until it is here.
_AT_ONCE, _ASKING = 0.001, 0.3
#: The server has given it to others, or will: what we told of it was not heard.
_GONE = frozenset(
    {
        Code.INVALID_RECORD_STATE,
        Code.UNKNOWN_TOPIC_OR_PARTITION,
        Code.UNKNOWN_TOPIC_ID,
        Code.UNKNOWN_MEMBER_ID,
        Code.SHARE_SESSION_NOT_FOUND,
        Code.INVALID_SHARE_SESSION_EPOCH,
    }
)
#: The thread that settled for others was interrupted.
_CUT_OFF = KafkaError(Code.TIMED_OUT_HERE, "the request was cut off", retriable=True)


class _Told:
    """What one thread settles, and what came of it."""

    def __init__(self, wanted: Sequence[tuple[Locked, Verdict]]) -> None:
        self.wanted = wanted
        self.answers: list[Answer] | None = None


class Reader:
    """See the module's text.

    `path`: of its queue. `size`: of a batch. `lock`: seconds of it that are ours. `timeout`: of one request.
    """

    def __init__(self, sharer: Sharer, path: str, size: int, lock: float, timeout: float) -> None:
        self._path = path
        self.size = size
        self.used = time.monotonic()  #: when it had something last
        self.young = True  #: it was never asked
        self._sharer = sharer
        self._lock = lock
        self._timeout = timeout
        self._out: set[Locked] = set()
        self._mutex = threading.Lock()  #: the member belongs to one thread at a time
        self._waiting: deque[_Told] = deque()  #: the same object always: others append while one takes out
        self.asked = 0.0  #: when it asked last, if nothing came: something may have come to that request since
        self._closed = False

    @property
    def free(self) -> bool:
        """Whether it may be given a batch."""
        return not self._out and not self._closed

    def poll(self, seconds: float) -> list[Locked]:
        """A batch, if there is something within so long."""
        with self._mutex:
            if not self.free:
                return []
            now = time.monotonic()
            found = self._ask(seconds)
            if time.monotonic() - now < _AT_ONCE:
                since = self.asked or now  # it lay here: it was locked at any time since we asked last
            else:
                since = max(self.asked, now - _ASKING)
            self.asked, self.young = 0.0 if found else now, False
            locked = [Locked(self, record, count, since + self._lock) for record, count in found]
            self._out.update(locked)
            if locked:
                self.used = now
            return locked

    def _ask(self, seconds: float) -> list[tuple[Stored, int]]:
        try:
            return self._sharer.poll(seconds)
        except KafkaError as error:
            if error.code == Code.UNSUPPORTED_VERSION:
                raise too_old(self._path) from error
            raise

    def settle(self, wanted: Sequence[tuple[Locked, Verdict]]) -> list[Answer]:
        """Settle each; whether it was still ours."""
        mine = _Told(wanted)
        self._waiting.append(mine)
        with self._mutex:
            if mine.answers is None:
                told = [self._waiting.popleft() for _ in range(len(self._waiting))]
                try:
                    self._tell(told)
                except BaseException:  # an interrupt of this thread: what it had begun may have been done for the others
                    for one in told:
                        one.answers = [_CUT_OFF] * len(one.wanted)
                    raise
        return mine.answers or []

    def _tell(self, told: Sequence[_Told]) -> None:
        asked = [(each, verdict) for one in told for each, verdict in one.wanted]
        fresh = [(each, verdict) for each, verdict in dict(asked).items() if each in self._out and each.held]
        answers: dict[Locked, Answer] = {}
        if fresh and not self._closed:
            found = self._send(fresh)
            for (each, verdict), error in zip(fresh, found, strict=True):
                if error is None:
                    each.done = verdict
                answers[each] = error is None or (error.code not in _GONE and error)
        for one in told:
            # The same again, after an answer that was lost, is no other settlement.
            one.answers = [answers.get(each, each.done is verdict) for each, verdict in one.wanted]

    def _send(self, wanted: Sequence[tuple[Locked, Verdict]]) -> list[KafkaError | None]:
        try:
            return self._sharer.settle([(each.record, verdict) for each, verdict in wanted], self._timeout)
        except KafkaError as error:
            return [error] * len(wanted)
        finally:
            # Told once, it cannot be told again: where the answer is an error, its lock ends by itself.
            self._out.difference_update(each for each, _ in wanted)

    def let_go(self) -> None:
        """Forget what was locked for too long: nobody will settle it."""
        over = [each for each in tuple(self._out) if not each.held]  # others settle meanwhile
        if over:
            with self._mutex:
                self._send([(each, Verdict.RELEASE) for each in over if each in self._out])

    def close(self) -> None:
        """Give back what is unsettled, counted, and leave."""
        with self._mutex:
            if not self._closed:
                self._closed = True
                if self._out:
                    self._send([(each, Verdict.RELEASE) for each in self._out])
                self._sharer.close()
