"""A source of a worker that publishes: what the ticks of schedules and the relay of an outbox have alike.

It owns how the source stands: begun, draining, without an answer, ended. What is published, and when, the subclass says in
`_work`. See `narrowboat.working.supervisor.Source`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from narrowboat._engine.backoff import after_error
from narrowboat._messages.handling import describe
from narrowboat.clock import Clock
from narrowboat.working.health import State


class Publisher(ABC):
    """The base of such a source."""

    _BEGINS: ClassVar[State]  #: how it stands until its first step

    def __init__(self, name: str, seat: Any, clock: Clock, random: Callable[[], float]) -> None:
        self._name = name  #: its thread's or task's
        self._seat = seat
        self._clock = clock
        self._random = random
        self._draining = False
        self._published = self._absences = 0
        self._state: State = "new"
        self._error: str | None = None

    @abstractmethod
    async def _work(self) -> None:
        """Publish until it drains."""

    @abstractmethod
    def _tell_away(self, error: Exception) -> None:
        """Tell the log that nothing can be published."""

    @abstractmethod
    def _tell_back(self) -> None:
        """Tell the log that this is over."""

    def start(self, ended: Callable[[BaseException | None], None]) -> None:
        """Publish from now on, in a thread or task of its own."""

        def finished(error: BaseException | None) -> None:
            self._state = "ended" if error is None else "failed"
            self._error = None if error is None else describe(error)
            ended(error)

        self._state = self._BEGINS
        self._seat.spawn(self._work(), self._name, finished)

    def drain(self) -> None:
        """Publish nothing more; what is under way is finished."""
        self._draining = True
        self._seat.wake()

    def hurry(self) -> None:
        """The same; a task is cancelled."""
        self._seat.hurry()

    def _shown(self) -> State:
        """How it stands, for its health."""
        return "draining" if self._draining and self._state not in ("ended", "failed") else self._state

    def _went_away(self, error: Exception) -> float:
        """Nothing could be published; seconds until that is tried again."""
        self._absences += 1
        self._error = describe(error)
        if self._absences == 1:
            self._tell_away(error)
        self._state = "unavailable"
        return after_error(self._absences, self._random)

    def _is_there(self) -> None:
        if self._absences:
            self._tell_back()
        self._absences, self._error = 0, None
