"""What threads and tasks do for one source: what is alike, and what each of them has to do in its own way.

`Consuming` stands on it, and `narrowboat.working.intake` and its asyncio twin are it. It decides nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ClassVar

from narrowboat._engine.later import unrun
from narrowboat.errors import InvalidArgument, NarrowboatError
from narrowboat.working.handlers import Around, Handler, Handling


class Misused(BaseException):
    """What is around a handler gave no context manager: a fault of the program, and of no message.

    No `Exception`, so that nothing that is around the handler as well takes it for a failure of the message.
    """

    def __init__(self, error: InvalidArgument) -> None:
        super().__init__(str(error))
        self.error = error


class BaseIntake(ABC):
    """One source. It owns the consumer of a batch handler, and the signal of who waits for a pause to end."""

    COROUTINES: ClassVar[bool]  #: what handlers are
    RUNTIME: ClassVar[Any]
    MANAGER: ClassVar[tuple[str, str, str]]  #: what `around` gives: its two methods, and how it is called

    def __init__(self, handler: Handler, source: Any, around: Sequence[Around], runtime: Any, grace: float) -> None:
        self._handler = handler
        self._source = source
        self._around: Sequence[Any] = around
        self._runtime = runtime
        self._grace = grace
        self._signal = runtime.signal()
        self._messages: Any = None  # of a batch handler

    @property
    def hung(self) -> int:
        """How many threads are in a handler whose time is up. None of the tasks: they can be cancelled."""
        return 0

    @abstractmethod
    def spawn(self, work: Coroutine[Any, Any, None], name: str, ended: Callable[[BaseException | None], None]) -> None:
        """Run `work` in a thread or task of its own, and tell how it ended."""

    @abstractmethod
    async def declare(self) -> None:
        """Ask the backend for the source; raises what the backend says."""

    @abstractmethod
    async def consume(self, consuming: Any, places: int, *, probing: bool) -> None:
        """Hand out messages to `consuming` until stopped: to so many handlers at a time, or one by one while probing."""

    @abstractmethod
    async def call(self, handling: Handling, argument: Any, late: Callable[[Exception], Any]) -> bool:
        """Call the handler within what is around it. False: its time was up before, and `late` was called then."""

    @abstractmethod
    async def settle(self, messages: Sequence[Any], outcome: Any) -> Sequence[NarrowboatError | None]:
        """Settle them alike, in one exchange: one answer for each."""

    @abstractmethod
    async def open(self) -> None:
        """For tests: begin to consume."""

    @abstractmethod
    async def take(self) -> Sequence[Any]:
        """For tests: the messages of one call, of those that are there now."""

    @abstractmethod
    async def leave(self) -> None:
        """For tests: end what `open` began."""

    @abstractmethod
    async def wait(self, until: float) -> None:
        """Until the clock says so, or until stopped, paused or told to look."""

    @abstractmethod
    def hurry(self) -> bool:
        """Give back what handlers have not finished. True: its thread is in a handler, and is left behind."""

    def stop(self) -> None:
        """End `consume` and `wait` in good order, within the grace time. From a signal handler."""
        self._source.stop()
        self._halt()

    def look(self) -> None:
        """Who waits looks again at what it waits for."""
        self._signal.set()

    def pause(self) -> None:
        """End `consume` and `wait`; handlers that run may finish, however long that takes."""
        for run in tuple(self._source._core.runs):
            run.finish()
        self._halt()

    def _halt(self) -> None:
        messages = self._messages
        if messages is not None:  # both: which of them it is doing, a signal handler cannot know
            messages.stop()
        self._signal.set()

    def _managed(self, around: Any, manager: Any) -> Any:
        """What `around` gave, if it is a context manager of this face."""
        enter, leave, kind = self.MANAGER
        if hasattr(type(manager), enter) and hasattr(type(manager), leave):
            return manager
        unrun(manager)  # closes a coroutine, which would complain
        raise Misused(
            InvalidArgument(
                f"around {self._handler.name}: {getattr(around, '__qualname__', around)} gave {type(manager).__name__}, and "
                f"no context manager; write it with @contextlib.{kind}"
            )
        )
