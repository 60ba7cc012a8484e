# Made from narrowboat/working/testing.py by tools/generate_aio.py: change that file, and run this script.
"""A worker under test: its handlers on a broker in memory, called by the test, with a clock of the test's own, for asyncio."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from narrowboat._engine.checks import seconds
from narrowboat._engine.holdable import AsyncOnly
from narrowboat._messages.checks import MAX_DURATION, check_count
from narrowboat.aio.locking import locks
from narrowboat.aio.messaging.message import Seconds
from narrowboat.aio.messaging.messaging import broker
from narrowboat.clock import ManualClock
from narrowboat.working.recording import Recorder, Told, fresh_url


class Rehearsal(AsyncOnly):
    """What `worker.test()` gives. Use it in an `async with`; meanwhile `worker.broker` and `worker.locks` are in memory.

    Nothing runs by itself: `drain()` calls the handlers. `clock` is a `ManualClock` of this test's own.
    """

    def __init__(self, worker: Any) -> None:
        self.clock = ManualClock()
        self._worker = worker
        self._recorder = Recorder(self.clock)
        self._sources: list[Any] = []
        self._lent = False

    async def __aenter__(self) -> Rehearsal:
        url = fresh_url()
        random = self._worker._random
        self._broker = broker(url, clock=self.clock, random=random, wrap=self._recorder.wrap)
        self._locks = locks(url, clock=self.clock, random=random)
        try:
            self._sources = self._worker._lend(self._broker, self._locks, self.clock)
            self._lent = True
            for source in self._sources:
                await source.open()
        except BaseException:
            await self._close()
            raise
        return self

    async def drain(self, *, within: Seconds = 30 * 86400, most: int = 10_000) -> Told:
        """Call handlers until there is nothing left for them: retries and delayed messages as well, by moving the clock.

        Args:
            within: seconds that the clock is moved at most; what is due later stays.
            most: calls of handlers; a message that comes back for ever would keep the test for ever.

        Returns what was published, handled, retried and dead since this call.
        """
        length = seconds("within", within, low=0.0, high=MAX_DURATION, allowed="0 or more seconds")
        left = check_count("most", most, 1, 1_000_000_000)
        ends = self.clock() + length
        told = self._recorder.told = Told()
        while True:
            moved = False
            for source in self._sources:
                while await source.step():
                    moved = True
                    left -= 1
                    if left < 0:
                        raise RuntimeError(
                            f"{most} calls of handlers, and there are messages still: does one come back for ever?"
                        )
            if moved:
                continue
            due = self._recorder.next_due()
            if due is None or due > ends:
                return told
            self.clock.advance(due - self.clock())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        if self._lent:
            self._worker._lend(None, None, None)
        for source in self._sources:
            await source.leave()
        await self._broker.close()
        await self._locks.close()
