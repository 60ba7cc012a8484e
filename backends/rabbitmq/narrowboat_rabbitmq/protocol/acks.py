"""Acks of one channel: which of them one frame can say, and how many frames a quorum queue may be sent before some are proven.

A server's process for a channel hands a queue 32 commands ahead of their application, and keeps what comes on top to itself. A
question to the queue overtakes those, and a consumer that is killed then takes them with it: acknowledged with an answer, and
handed out again. So no more frames than that are sent until some are known to have been applied. Two things tell. A push: the
queue pushes no more than it was granted, so each message beyond that tells of a settlement that was applied. And a command of
ours that goes through the queue's log itself, where nothing is pushed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable

#: Frames that may be unproven at a time. The server's own bound is 32; the rest is for what else a channel says to a queue.
AHEAD = 24


def coalesce(outstanding: Iterable[int], settled: Collection[int]) -> tuple[int, list[int]]:
    """The number up to which all of `outstanding` (in order) are in `settled`, 0 for none; and the rest, one by one.

    Acknowledging "all up to n" costs one frame, and must not touch what somebody still has in his hands.

    >>> coalesce([3, 4, 5, 6, 7], {3, 4, 6})
    (4, [6])
    >>> coalesce([3, 4], {4})
    (0, [4])
    """
    last = 0
    done = 0
    for number in outstanding:
        if number not in settled:
            break
        last = number
        done += 1
    if done == len(settled):
        return last, []
    return last, sorted(number for number in settled if number > last)


class Pace:
    """Counts the settlements that are on their way into the log of one queue, for one channel that consumes from it.

    >>> pace = Pace()
    >>> pace.grant(2)
    >>> [pace.push(), pace.push(), pace.sent(2), pace.room]
    [None, None, None, 23]
    >>> [pace.push(), pace.room, pace.push(), pace.room]
    [None, 23, None, 24]
    """

    def __init__(self) -> None:
        self._granted = 0  # what may be pushed without any settlement that was not proven yet
        self._pushed = 0
        self._settled = 0
        self._unproven: deque[int] = deque()  # for each frame, how many had been settled with it

    def grant(self, messages: int) -> None:
        """Allow the server to push so many more. Before it is told."""
        self._granted += messages

    def push(self) -> None:
        """Count a message that was pushed."""
        self._pushed += 1

    def sent(self, messages: int) -> None:
        """Count a frame that settles so many of the pushed messages."""
        self._settled += messages
        self._unproven.append(self._settled)

    @property
    def room(self) -> int:
        """How many frames may be sent now."""
        proven, unproven = self._pushed - self._granted, self._unproven
        while unproven and unproven[0] <= proven:
            unproven.popleft()
        return AHEAD - len(unproven)

    def proven(self) -> None:
        """Forget what was on its way: all of it has been applied."""
        # What is out is what was pushed and not settled: so much less may be pushed without a settlement to come.
        self._granted -= self._pushed - self._settled
        self._pushed = self._settled = 0
        self._unproven.clear()
