"""`run`: a handler in worker threads, from the first message to a clean end.

A handler that returns acks its message; one that raises an Exception nacks it, with a growing delay, and at the last
delivery sends it to the dead letters with the exception as the reason; a BaseException settles nothing, ends the run and
reaches the caller of `run`. A message that the handler settled itself is left alone.

SIGTERM and SIGINT end every run of the process, when one of them is in the main thread (`narrowboat._engine.signals`): each
fetches nothing more, gives back what was not started, waits for running handlers for up to the grace time, gives back at
once what they did not finish, and returns. After SIGINT the one in the main thread ends with KeyboardInterrupt, as Ctrl-C
does elsewhere. A second signal ends the wait for the handlers. A thread whose handler never returns cannot be ended; it
ends with the process.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from narrowboat._engine.later import kind
from narrowboat._engine.log import log
from narrowboat._engine.runtime import BlockingSignal, run
from narrowboat._messages.consumer import Consumer
from narrowboat._messages.delivery import HELD
from narrowboat._messages.handling import after_handler, check_result, is_telling, tell_handled
from narrowboat.contract.messages import Nack, Outcome, Reject
from narrowboat.errors import Closed, InvalidArgument
from narrowboat.messaging.message import Message

T = TypeVar("T")

#: Seconds after which a run looks up from its wait. The system may give a signal to any thread, and its handler runs in the
#: main one when that does something: longer, and a signal may wait for as long.
LOOK = 1.0


class Run(Generic[T]):
    """One call of `run`."""

    def __init__(self, consumer: Consumer[Message[T]], handle: Callable[[Message[T]], object], concurrency: int) -> None:
        self._consumer = consumer
        self._core = consumer.core
        self._handle = handle
        self._signal: BlockingSignal = consumer.core.runtime.signal()
        self._running = concurrency
        self._mutex = threading.Lock()
        self._error: BaseException | None = None
        self._patient = False  # handlers that run may take as long as they do
        self._hurried = False
        self._threads = [
            threading.Thread(target=self._work, name=f"narrowboat-run-{consumer.path}-{number}", daemon=True)
            for number in range(concurrency)
        ]

    def stop(self) -> None:
        """End it gracefully, from any thread or signal handler."""
        self._patient = False
        self._consumer.closing.stop()
        self._signal.set()

    def finish(self) -> None:
        """As `stop`, but the handlers that run finish however long that takes; a `stop` later on gives them the grace time."""
        self._patient = self._patient or not self._consumer.life.stopped
        self._consumer.closing.stop()
        self._signal.set()

    def wait(self, grace: float) -> None:
        """Work until stopped; then drain."""
        for number, thread in enumerate(self._threads):
            try:
                thread.start()
            except RuntimeError as error:  # there is none to be had: the handlers that have begun are waited for
                with self._mutex:
                    self._running -= len(self._threads) - number
                self._error = self._error or error
                self._consumer.closing.stop()
                break
        while self._running and not self._consumer.life.stopped:
            run(self._core.runtime.wait(self._signal, self._core.clock() + LOOK))
        self._consumer.closing.stop()
        if not self._core.closed:
            run(self._consumer.closing.give_back())
        ends = math.inf
        while self._running and self._core.clock() < ends and not self._hurried:
            if not self._patient:
                ends = min(ends, self._core.clock() + grace)
            run(self._core.runtime.wait(self._signal, min(ends, self._core.clock() + LOOK)))
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        consumer = self._consumer
        try:
            while True:
                got: list[Message[T]] = []
                run(consumer.receive(1, math.inf, got))
                if not got:
                    break
                self._do(got[0])
        except Closed:
            pass
        except BaseException as error:
            self._error = self._error or error
            self.stop()
        finally:
            with self._mutex:
                self._running -= 1
            self._signal.set()

    def _do(self, message: Message[T]) -> None:
        raised: Exception | None = None
        begun = self._core.clock()
        try:
            found = self._handle(message)
            if found is not None:
                check_result(self._handle, found)
        except Exception as error:
            raised = error
        made = outcome(message, raised) if message._state is HELD else None
        tell(self._handle, message, self._core.clock() - begun, raised, made)
        if made is not None:
            # Listeners hear the outcome. Stale and unknown both mean only that the message may be redelivered.
            run(self._consumer.settlement.settle((message,), made))

    def hurry(self) -> None:
        """A second signal: stop waiting for the handlers."""
        self._hurried = True
        self._signal.set()


def outcome(message: Any, raised: Exception | None) -> Any:
    """How the message of a handler that returned or raised is settled."""
    consumer = message._consumer
    return after_handler(
        raised,
        attempt=message.attempt,
        limit=consumer.limit,
        undecodable=message.undecodable,
        claims=consumer.core.capabilities,
        random=consumer.core.random,
    )


def tell(handle: object, message: Any, duration: float, error: Exception | None, outcome: Outcome | None) -> None:
    """Tell listeners how a message was handled; an exception must not vanish, so its traceback goes to the log as well."""
    if not is_telling(handle):
        tell_handled(message, duration, error, outcome)
    if error is None:
        return
    path, dead = message._consumer.path, isinstance(outcome, Reject)
    then = "a dead letter" if dead else "it was settled or lost before"
    if isinstance(outcome, Nack):
        then = f"again in {outcome.delay:.3g} s"
    log(
        "ERROR" if dead else "WARNING",
        "the handler of %r failed on message %r, attempt %d; %s",
        path,
        message.id,
        message.attempt,
        then,
        error=error,
        event="dead_letter" if dead else "handler_failed",
        backend=message._consumer.backend,
        source=path,
        message_id=message.id,
        attempt=message.attempt,
    )


def check_handler(handle: object, *, coroutine: bool) -> None:
    """A plain function in the sync face, a coroutine function in the other."""
    if not callable(handle):
        raise InvalidArgument(f"run({handle!r}): expected a function of one message")
    found = kind(handle)
    if found == "generator":
        raise TypeError(f"run({handle!r}): it has a yield in it, so a call of it would run none of it; a handler returns")
    if (found == "coroutine") is not coroutine:
        raise TypeError(
            f"run({handle!r}): expected a coroutine function; for plain functions use narrowboat.broker"
            if coroutine
            else f"run({handle!r}): expected a plain function; for coroutine functions use narrowboat.aio"
        )
