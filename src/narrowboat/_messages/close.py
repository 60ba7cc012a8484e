"""How a consumer ends: its buffer goes back at once, then the feed is closed, and with it the rest goes back.

A caller that is interrupted or cancelled on the way *abandons* the consumer: the remaining steps are posted, without
waiting. While the backend is silent, a close waits for one operation timeout in all, not for one at each step. Every
method may be repeated.
"""

from __future__ import annotations

import contextlib
from typing import Any, Generic, TypeVar

from narrowboat._engine.exchange import Call
from narrowboat._messages.core import BrokerCore
from narrowboat._messages.delivery import TrackedDelivery
from narrowboat._messages.extension import Extending
from narrowboat._messages.lifetime import Lifetime
from narrowboat._messages.polling import Polling
from narrowboat._messages.settle import Settlement
from narrowboat._messages.window import Window
from narrowboat.contract.messages import Return
from narrowboat.errors import Closed, NarrowboatError, Unavailable

M = TypeVar("M", bound=TrackedDelivery[Any])

RETURN = Return()


class Closing(Generic[M]):
    """See the module's text. Only this class sets the flags of the consumer's `Lifetime`."""

    def __init__(
        self,
        core: BrokerCore,
        path: str,
        life: Lifetime,
        window: Window[M],
        polling: Polling,
        settlement: Settlement[M],
        extending: Extending,
    ) -> None:
        self._core = core
        self._path = path
        self._life = life
        self._window = window
        self._polling = polling
        self._settlement = settlement
        self._extending = extending

    def stop(self) -> None:
        """Let the consumer hand out nothing more. Safe in a signal handler."""
        self._life.stopped = True
        self._polling.rouse_all()

    async def give_back(self) -> None:
        """Stop, and return the buffered messages; uncounted where the backend claims that."""
        self.stop()
        core = self._core
        if core.closed:
            return
        begun = core.clock()
        # Through the lane of fetches: behind a fetch that is under way, whose messages are to go back as well.
        entries = await core.ask(lambda driver: self._depart(), local=True)
        if entries and core.silent(begun):
            self._settlement.post(entries, RETURN)
        elif entries:
            await self._settlement.settle(entries, RETURN)

    def _depart(self) -> list[M]:
        """Tell the feed to take nothing more, and empty the buffer. Returns what was in it."""
        with contextlib.suppress(NarrowboatError):  # what the feed still has comes back when it is closed, counted
            self._life.feed.leave()
        return self._window.drain()

    async def close(self) -> None:
        """Return the buffered messages, then close the feed.

        Raises `Unavailable` when the backend does not answer: what is unsettled comes back with its lease or its connection.
        """
        core, life = self._core, self._life
        try:
            if life.closed or life.forked or core.closed:
                return
            begun = core.clock()
            try:
                await self.give_back()
                if not core.silent(begun):
                    await self._settlement.flush()  # or the feed's end would give those messages back
            finally:
                if not core.silent(begun):
                    await self._close_feed()
            if not life.closed:
                raise Unavailable(
                    f"consumer of {self._path!r}: the backend does not answer, so it was left without waiting for it. What is "
                    "unsettled comes back with its lease or its connection",
                    backend=core.backend,
                )
        except Exception:
            if not life.closed:
                self.abandon()
            raise
        except BaseException:
            self.abandon()
            raise

    async def _close_feed(self) -> None:
        core, life = self._core, self._life
        self._end()
        (answer,) = await core.runtime.call(core.fetches, Call(core.LOCAL, (lambda driver: life.feed.close(),)))
        life.feed_closed = True
        if isinstance(answer, Exception) and not isinstance(answer, Closed):
            raise answer

    def abandon(self) -> None:
        """Close for a caller that is torn away, at any point: the remaining steps are posted."""
        core, life = self._core, self._life
        self._end()
        if life.opened and not life.feed_closed and not life.forked and not core.closed:
            core.fetches.post(core.LOCAL, (lambda driver: life.opened[0].close(),))
            life.feed_closed = True

    def _end(self) -> None:
        self._life.stopped = self._life.closed = True
        self._core.consumers.discard(self)
        self._extending.forget()
        self._polling.rouse_all()

    # -- what the core says ---------------------------------------------------------------------------------------

    def broker_closes(self) -> None:
        """Wake the callers that wait: the broker is closed."""
        self._polling.rouse_all()

    def post_return(self) -> None:
        """Return the buffered messages while the broker closes: no fetch is under way, and no caller waits."""
        entries = self._window.drain()
        if entries:
            self._settlement.post(entries, RETURN)

    def forked(self) -> None:
        """In a forked child: the deliveries are the parent's."""
        self._life.stopped = self._life.forked = True
        self._window.forked()
        self._polling.waiting.clear()
