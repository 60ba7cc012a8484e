"""A channel of a connection, and calls on it for which other threads wait.

A server refuses a call by closing the channel; then every call that waits on it is told why, and the channel is not used again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from narrowboat.errors import Unavailable
from narrowboat_rabbitmq.connection.link import Link, Session
from narrowboat_rabbitmq.connection.loop import Answer, pause
from narrowboat_rabbitmq.errors import Operation, channel_error, crashed, late
from narrowboat_rabbitmq.library import silence

#: A call by its name in pika, with its arguments.
Step = tuple[str, dict[str, Any]]

T = TypeVar("T")

#: Seconds between two tries of what crashed the server's side of a connection.
_PAUSE = 0.05


def retry_crashed(work: Callable[[], T], clock: Callable[[], float], deadline: float) -> T:
    """Do `work`, which may be done twice, again while it only crashes the server's end of the connection (541).

    A server of 3.10 crashes it when a quorum queue is consumed from that somebody else is just declaring.
    """
    while True:
        try:
            return work()
        except Unavailable as error:
            if not crashed(error) or clock() + _PAUSE >= deadline:
                raise
            pause(_PAUSE)


class Channel:
    """See the module's text. `raw` is pika's; only the I/O thread uses it."""

    raw: Any

    def __init__(self, link: Link, session: Session) -> None:
        self.link = link
        self.session = session
        self.alive = True
        self.error: BaseException | None = None
        self.on_end: Callable[[BaseException], None] | None = None
        self.unanswered: set[int] = set()  #: what was settled on it and had no answer yet, or never will
        self._waiting: set[Answer[Any]] = set()

    @classmethod
    def open(cls, link: Link, operation: Operation, on_end: Callable[[BaseException], None] | None = None) -> Channel:
        """A new channel on the link's connection. Where that fails, nothing of the operation was sent."""
        channel = cls(link, link.ready(operation))
        channel.on_end = on_end
        answer: Answer[None] = Answer()
        link.loop.post(lambda: channel._open(answer))
        channel.wait(answer, operation._replace(prepares=True))
        return channel

    # -- for callers ----------------------------------------------------------------------------------------------

    def call(self, steps: Sequence[Step], operation: Operation) -> list[Any]:
        """Make these calls one after the other; returns the methods of their answers, raises why the first was refused."""
        answer: Answer[list[Any]] = Answer()
        self.link.loop.post(lambda: self.start(steps, answer))
        found: list[Any] = self.wait(answer, operation)
        return found

    def wait(self, answer: Answer[Any], operation: Operation) -> Any:
        """The value of `answer`; raises its error, or that it did not come in time."""
        heard = self.session.heard
        if not answer.wait(operation.deadline - self.link.loop.clock()):
            self.link.doubt(self.session, heard)
            raise late(self.link.endpoint, operation, self.link.timeout)
        if answer.error is not None:
            raise channel_error(answer.error, self.link.endpoint, operation)
        return answer.value

    def close(self, timeout: float) -> None:
        """Close it and wait for the server's answer: then what was unsettled on it is back in its queue."""
        answer: Answer[None] = Answer()
        self.link.loop.post(lambda: self._close(answer))
        answer.wait(timeout)

    # -- on the I/O thread ----------------------------------------------------------------------------------------

    def start(self, steps: Sequence[Step], answer: Answer[list[Any]]) -> None:
        """Begin with the first of `steps`."""
        if not self.expect(answer):
            return
        found: list[Any] = []

        def step(frame: Any) -> None:
            if frame is not None:
                found.append(getattr(frame, "method", frame))
            if len(found) == len(steps):
                self.resolve(answer, found)
                return
            name, arguments = steps[len(found)]
            try:
                getattr(self.raw, name)(**arguments, callback=step)
            except Exception as error:
                self._waiting.discard(answer)
                answer.fail(error)

        step(None)

    def expect(self, answer: Answer[Any]) -> bool:
        """Let `answer` fail when this channel ends. False: it has ended, and the answer has failed."""
        if not self.alive:
            answer.fail(self.error or RuntimeError("the channel is closed"))
            return False
        self._waiting.add(answer)
        return True

    def resolve(self, answer: Answer[Any], value: Any) -> None:
        """Resolve a pending answer."""
        self._waiting.discard(answer)
        answer.give(value)

    def end(self, error: BaseException) -> None:
        """Tell everybody who waits on it that it is over, whatever pika says later. Idempotent."""
        if not self.alive:
            return
        self.alive = False
        self.error = error
        self.session.on_end.pop(self, None)
        waiting, self._waiting = self._waiting, set()
        for answer in waiting:
            answer.fail(error)
        if self.on_end is not None:
            self.on_end(error)

    def drop(self, error: BaseException) -> None:
        """End it and tell the server."""
        self.end(error)
        if self.session.alive and self.raw.is_open:
            self.raw.close()

    def _open(self, answer: Answer[None]) -> None:
        if not self.session.alive:
            self.alive, self.error = False, self.session.error
            answer.fail(self.session.error or RuntimeError("the connection is closed"))
            return
        self.session.on_end[self] = self.end
        self._waiting.add(answer)

        def opened(raw: Any) -> None:
            self.resolve(answer, None)

        try:
            self.raw = self.session.connection.channel(on_open_callback=opened)
            silence(self.raw)
            self.raw.add_on_close_callback(lambda raw, error: self.end(error))
        except Exception as error:
            self.end(error)

    def _close(self, answer: Answer[None]) -> None:
        if not self.alive or not self.raw.is_open:
            answer.give(None)
            return

        def closed(*_: object) -> None:
            self.session.on_end.pop(answer, None)
            answer.give(None)

        self.raw.add_on_close_callback(closed)
        self.session.on_end[answer] = closed
        self.drop(RuntimeError("closed"))
