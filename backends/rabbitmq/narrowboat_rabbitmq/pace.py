"""How many settlements may be on their way into a quorum queue's log, and which of them have surely arrived. Pure.

The server's process for a channel hands a queue 32 commands ahead of their application, and keeps what comes on top to itself.
A question to the queue overtakes those, and a consumer that is killed then takes them with it: acknowledged with an answer,
and handed out again. So no more frames than that are sent until some are known to have been applied. That is known from two
things. A push: the queue pushes no more than it was granted, so each one beyond that tells of a settlement that was applied.
And a command of ours that goes through the log itself, where there is nothing to be pushed.
"""

from __future__ import annotations

from collections import deque

#: Frames that may be unproven at a time. The server's own bound is 32; the rest is for what else a channel says to a queue.
AHEAD = 24


class Pace:
    """The count of one channel that consumes from one queue.

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
        """So many more may be pushed and unsettled. Before the server is told of it."""
        self._granted += messages

    def push(self) -> None:
        """One was pushed."""
        self._pushed += 1

    def sent(self, messages: int) -> None:
        """A frame was sent that settles so many of what was pushed."""
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
        """All that was sent has been applied."""
        # What is out is what was pushed and not settled: so much less may be pushed without a settlement to come.
        self._granted -= self._pushed - self._settled
        self._pushed = self._settled = 0
        self._unproven.clear()
