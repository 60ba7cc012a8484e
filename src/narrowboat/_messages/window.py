"""The prefetch window of one consumer: what is fetched and not settled, and the buffer that messages are handed out
from.

The window bounds what is unsettled: buffered, handed out, or being fetched. It makes no I/O, reads no clock, and
calls nothing but the feed's `current`. When to fetch is decided in `polling.py`; settling is in `settle.py`.

`mutex` guards the window, the states of its deliveries, and the consumer's `Polling` and `Extending`. It is never
held during I/O or during a call of user code. `settle.py` and `extension.py` take it as well.

A caller passes in the list that its messages go into, `got`. An interrupt can strike between a return and the storing
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

EXPIRED = Ack()  #: compared by identity: the message is settled because its ttl ended, and no handler saw it


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
        self.condemned: dict[M, Outcome] = {}  #: what must not be handed out, with the outcome that it is to be settled with
        self.current: Callable[[Delivery], bool] | None = None  #: the feed's own check, where the feed has one
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
        """The members of `deliveries` that an interrupted `admit` left out. What it buffered counts as unsettled."""
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
        """Take back what was not handed out after all, and empty `got`. It may be repeated, and needs no mutex."""
        buffer = self.buffer
        if got and buffer and buffer[0] is got[-1]:
            del got[-1]  # the interrupt came before it left the buffer
        buffer.extendleft(reversed(got))
        got.clear()

    def drop(self, entry: M) -> None:
        """Remove a delivery that is no longer ours. No event: the consumer that has it by now emits its own."""
        self.unsettled.discard(entry)
        entry._lose()

    def sweep(self, now: float) -> float:
        """Forget deliveries that are no longer ours, so that they do not fill the window. Returns when the next lease ends."""
        current = self.current
        over = [e for e in self.unsettled if e._until <= now or (current is not None and not current(e._delivery))]
        self.unsettled.difference_update(over)
        return min((entry._until for entry in self.unsettled), default=now)

    def still_ours(self, got: list[M]) -> bool:
        """Ask once more about messages that were gathered during a wait, and drop those that ended. False: none is left."""
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
        """In a forked child: all deliveries are the parent's, and a thread that does not exist here may hold the mutex."""
        self.mutex = threading.Lock()
        self.unsettled.clear()
        self.buffer.clear()
        self.condemned.clear()
