"""What one consumer has fetched and not settled: the prefetch window, and in it the buffer that messages are handed out
from.

The window bounds what is unsettled: buffered, handed out, or just being fetched. It makes no I/O, knows no clock and
calls nobody but the feed's `current`. It does not decide when to fetch (`polling.py`), and settles nothing
(`settle.py`).

`mutex` guards the window, the states of its deliveries, and the consumer's `Polling` and `Extending`. It is held for
no I/O and for no call of a user's code. `settle.py`, `extension.py` and `close.py` take it as well.

What is handed out goes into a list of the caller's, `got`: an interrupt can strike between a return and the storing
of what was returned, and a message that neither the caller nor the buffer knows would be extended for ever.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from narrowboat._messages.delivery import HELD, TrackedDelivery
from narrowboat.contract.messages import Ack, Delivery, Outcome

M = TypeVar("M", bound=TrackedDelivery[Any])

EXPIRED = Ack()  #: known by identity: settled because its ttl ended, not because anybody was done with it


def room(prefetch: int, unsettled: int, requested: int, batch_max: int) -> int:
    """How many messages may be fetched now, in one call.

    >>> room(100, 30, 0, 1000), room(100, 30, 70, 1000), room(5000, 0, 0, 1000)
    (70, 0, 1000)
    """
    return max(0, min(prefetch - unsettled - requested, batch_max))


class Window(Generic[M]):
    """See the module's text. The methods without a `with` are called under the mutex."""

    def __init__(self, prefetch: int, batch_max: int) -> None:
        self.mutex = threading.Lock()
        self.unsettled: set[M] = set()
        self.buffer: deque[M] = deque()
        self.condemned: dict[M, Outcome] = {}  #: not to be handed out, and not settled yet
        self.current: Callable[[Delivery], bool] | None = None  #: the feed's, where the feed has something to say
        self._prefetch = prefetch
        self._batch_max = batch_max

    @property
    def full(self) -> bool:
        """Whether nothing more may be fetched until something is settled."""
        return len(self.unsettled) >= self._prefetch

    def room(self, requested: int) -> int:
        """How many messages may be fetched now, while `requested` others are being fetched."""
        return room(self._prefetch, len(self.unsettled), requested, self._batch_max)

    def admit(self, fresh: Sequence[M], condemned: Mapping[M, Outcome]) -> None:
        """Take in what was fetched."""
        # The buffer first: what an interrupt keeps out of it must not be extended, or it would never come back.
        self.buffer.extend(fresh)
        self.condemned.update(condemned)
        self.unsettled.update(fresh)
        self.unsettled.update(condemned)

    def missing(self, deliveries: Iterable[Delivery]) -> list[Delivery]:
        """Those of `deliveries` that an interrupted `admit` left out. What is buffered counts from now on."""
        self.unsettled.update(self.buffer, self.condemned)
        known = {id(entry._delivery) for entry in self.unsettled}
        return [delivery for delivery in deliveries if id(delivery) not in known]

    def take(self, count: int, got: list[M], now: float) -> None:
        """Fill `got` up to `count` with buffered messages that are still ours and have not expired. Never waits."""
        with self.mutex:
            try:
                buffer, current = self.buffer, self.current
                while buffer and len(got) < count:
                    entry = buffer[0]
                    if (
                        entry._until <= now
                        or entry._state is not HELD
                        or (current is not None and not current(entry._delivery))
                    ):
                        self.drop(entry)
                    elif entry._expires is not None and entry._expires <= now:
                        self.condemned[entry] = EXPIRED
                    else:
                        got.append(entry)
                    del buffer[0]
            except BaseException:
                self.put_back(got)  # before anybody else can take the first one, which may be in both
                raise

    def put_back(self, got: list[M]) -> None:
        """Take back what was not handed out after all, and empty `got`. Repeating it does nothing. Needs no mutex."""
        buffer = self.buffer
        if got and buffer and buffer[0] is got[-1]:
            del got[-1]  # the interrupt came before it left the buffer
        buffer.extendleft(reversed(got))
        got.clear()

    def drop(self, entry: M) -> None:
        """Hand out to nobody what is no longer ours; silently, because whoever has it by now tells of it."""
        self.unsettled.discard(entry)
        entry._lose()

    def sweep(self, now: float) -> float:
        """Forget what is no longer ours, so that it does not fill the window; when the next lease ends."""
        current = self.current
        over = [e for e in self.unsettled if e._until <= now or (current is not None and not current(e._delivery))]
        self.unsettled.difference_update(over)
        return min((entry._until for entry in self.unsettled), default=now)

    def still_ours(self, got: list[M]) -> bool:
        """Whether what was gathered during a wait may be handed out; what may not is dropped from `got`."""
        current = self.current
        if current is None:
            return True
        gone = [entry for entry in got if not current(entry._delivery)]
        with self.mutex:
            for entry in gone:
                self.drop(entry)
                got.remove(entry)
        return bool(got)

    def drain(self) -> list[M]:
        """Empty the buffer; what was in it."""
        with self.mutex:
            entries = list(self.buffer)
            self.buffer.clear()
        return entries

    def forked(self) -> None:
        """In a forked child: all of it is the parent's, and the mutex may be held by a thread that is not here."""
        self.mutex = threading.Lock()
        self.unsettled.clear()
        self.buffer.clear()
        self.condemned.clear()
