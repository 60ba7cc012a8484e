"""A worker under test: its handlers on a broker in memory, called by the test, with a clock of the test's own."""

from __future__ import annotations

from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from narrowboat._engine.checks import seconds
from narrowboat._engine.holdable import SyncOnly
from narrowboat._engine.runtime import straight
from narrowboat._messages.checks import MAX_DURATION, check_count
from narrowboat._messages.requests import requests_of
from narrowboat.clock import ManualClock
from narrowboat.dsn import unknown
from narrowboat.errors import InvalidArgument
from narrowboat.locking import locks
from narrowboat.messaging.message import Seconds
from narrowboat.messaging.messaging import Messaging, broker
from narrowboat.working import posting
from narrowboat.working.recording import Recorder, Told, fresh_url
from narrowboat.working.waiting import Passing, Waiting

#: Calls of handlers in one drain. More keep a test for ever whose message comes back for ever.
MOST = 10_000


class Rehearsal(SyncOnly):
    """What `worker.test()` gives. Use it in a `with`; meanwhile `worker.broker` and `worker.locks` are in memory.

    Nothing runs by itself: `drain()` calls the handlers. `clock` is a `ManualClock` of this test's own. A `request` on
    `worker.broker` calls them as well while it waits for its reply, and times out by that clock. A busy lock of
    `worker.locks` moves the clock until it is free or its timeout is over.
    """

    def __init__(self, worker: Any) -> None:
        self.clock = ManualClock()
        self._worker = worker
        self._recorder = Recorder(self.clock)
        self._sources: list[Any] = []
        self._lent = False
        self._most, self._calls = MOST, 0

    def __enter__(self) -> Rehearsal:
        url = fresh_url()
        random = self._worker._random
        given = self._worker._given[0]
        around = given._core.around if isinstance(given, Messaging) else ()
        self._broker = broker(url, clock=self.clock, random=random, wrap=self._recorder.wrap, around=around)
        requests_of(self._broker._core).wait_by(Waiting(self.clock, self._wait))
        self._locks = locks(url, clock=self.clock, random=random)
        self._locks._runtime = Waiting(self.clock, Passing(self.clock))
        try:
            self._sources = self._worker._lend(self._broker, self._locks, self.clock)
            self._lent = True
            for source in self._sources:
                straight(source.open())
        except BaseException:
            self._close()
            raise
        return self

    def drain(self, *, within: Seconds = 30 * 86400, most: int = MOST) -> Told:
        """Call handlers until there is nothing left for them: retries and delayed messages as well, by moving the clock.

        Args:
            within: seconds that the clock is moved at most; what is due later stays.
            most: calls of handlers; a message that comes back for ever would keep the test for ever.

        Returns what was published, handled, retried and dead since this call.
        """
        length = seconds("within", within, low=0.0, high=MAX_DURATION, allowed="0 or more seconds")
        self._most, self._calls = check_count("most", most, 1, 1_000_000_000), 0
        ends = self.clock() + length
        told = self._recorder.told = Told()
        try:
            while self._move(ends):
                pass
        finally:
            self._most, self._calls = MOST, 0
        return told

    def _move(self, until: float) -> bool:
        """Call handlers while there is something for them, else move the clock to what is due by `until`. False: neither."""
        moved = False
        for source in self._sources:
            while straight(source.step()):
                moved = True
                self._calls += 1
                if self._calls > self._most:
                    raise RuntimeError(
                        f"{self._most} calls of handlers, and there are messages still: does one come back for ever?"
                    )
        due = self._recorder.next_due()
        if moved or due is None or due > until:
            return moved
        self.clock.advance(due - self.clock())
        return True

    def _wait(self, until: float) -> None:
        """For a request that waits for its reply."""
        if not self._move(until):
            self.clock.advance(until - self.clock())

    def tick(self, schedule: str, instant: datetime | None = None) -> None:
        """A tick of that schedule, for the next `drain`: of `instant`, an aware datetime; of now unless given."""
        if instant is not None and (not isinstance(instant, datetime) or instant.tzinfo is None):
            raise InvalidArgument(f"tick({schedule!r}, {instant!r}): expected a datetime with a time zone")
        if not isinstance(schedule, str):
            raise InvalidArgument(f"tick({schedule!r}): expected the name of a schedule")
        at = datetime.fromtimestamp(self._worker._now(), UTC) if instant is None else instant
        by_name = {source.handler.source: source.handler for source in self._sources}
        handler = by_name.get(f"schedule.{schedule}")
        if handler is None:
            known = [name.removeprefix("schedule.") for name in by_name if name.startswith("schedule.")]
            raise InvalidArgument(unknown("schedule", schedule, known))
        straight(posting.post(handler.open(self._broker), at))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    def _close(self) -> None:
        if self._lent:
            self._worker._lend(None, None, None)
        for source in self._sources:
            straight(source.leave())
        self._broker.close()
        self._locks.close()
