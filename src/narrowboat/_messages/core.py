"""What both message faces stand on: the driver, its three lanes, the consumers of this process.

`Messaging` and `aio.Messaging` are thin; what waits is in `consumer.py` and `requests.py`, what publishes in
`source.py`. This file imports none of them: it knows a consumer by the protocols below.

There are three lanes, because what frees must not queue behind what waits, nor either of them behind publishers:
*fetches* (receive, and the plain calls), *settlements* (settle, extend, return), *sends*. Publishers that arrive
while a send is under way share the next one, and so its commit.
"""

from __future__ import annotations

import enum
import math
import random as random_module
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any, Protocol, TypeVar

from narrowboat._engine.between import lane, timer
from narrowboat._engine.driver import SILENT, Driver
from narrowboat._engine.exchange import AT_ONCE, Call, Op
from narrowboat._engine.forks import watch_forks
from narrowboat._engine.later_events import checked, events
from narrowboat._engine.log import log
from narrowboat._engine.reach import Reach
from narrowboat._engine.runtime import Runtime, answer_of
from narrowboat._engine.target import Target
from narrowboat._engine.unclosed import Unclosed
from narrowboat._engine.validity import deadline
from narrowboat._messages.polling import LATE
from narrowboat._messages.unpublished import not_sent, unpublished
from narrowboat.capabilities import BrokerCapabilities, LeaseNature, Scope
from narrowboat.clock import Clock
from narrowboat.contract.messages import Broker, Delivery, Feed, Outcome, Outgoing, Receipt
from narrowboat.errors import Closed, NarrowboatError, Unavailable
from narrowboat.layers import named
from narrowboat.registry import broker_backend

T = TypeVar("T")

#: What a driver answers of a message that is published.
_RECEIPTS = frozenset((Receipt,))


class ReplyTo(enum.Enum):
    """Where `message.reply` may send: `?reply_to=`."""

    INBOX = "inbox"  #: to an inbox of ours, and nowhere else
    ANY = "any"  #: wherever the message says, and so wherever its publisher likes


class Fetches(Protocol):
    """A consumer, as the lane of fetches knows it."""

    def fetch(self, limit: int) -> int:
        """Receive up to `limit` messages and keep them; how many came."""
        ...


class Ends(Protocol):
    """The end of a consumer, as the core knows it: what has to be done when the broker is closed, or the process forked."""

    def broker_closes(self) -> None:
        """Wake the callers that wait."""
        ...

    def post_return(self) -> None:
        """Return what was not started, without waiting for it."""
        ...

    def forked(self) -> None:
        """Forget everything: it is the parent's."""
        ...


class Kept(Protocol):
    """A consumer with leases to extend."""

    def look(self) -> float:
        """Extend what is due, without waiting for it; when to look again."""
        ...


class BrokerCore:
    """See the module's text. Its attributes are for the core's own files and for the two faces only."""

    #: What the core takes from a broker's URL or keyword arguments itself, beside what it takes from every URL.
    OWN: Mapping[str, type[Any]] = {"reply_to": ReplyTo, **named.OPTIONS}
    around: tuple[Any, ...] = ()  #: what stands around each publish; `around.py`

    def __init__(
        self,
        url: str | None,
        require: str | Mapping[str, object] | None,
        clock: Clock | None,
        random: Callable[[], float] | None,
        listeners: Sequence[events.Listener],
        wrap: Callable[[Broker], Broker] | None,
        options: Mapping[str, object],
        runtime: Callable[[Clock], Runtime],
    ) -> None:
        target: Target[Broker] = Target(
            broker_backend,
            "NARROWBOAT_BROKER_URL",
            url,
            require,
            clock,
            wrap,
            options,
            self.OWN,
            tell=_tells(weakref.ref(self)),
            layers=named.add,
        )
        self.url = target.url
        self.backend = target.url.scheme
        self.capabilities: BrokerCapabilities = target.capabilities
        #: the one that the URL names; of several nobody knows which answers
        self.server = target.url.hosts[0] if self.capabilities.scope is Scope.NETWORK and len(target.url.hosts) == 1 else None
        self.timeout = target.timeout
        self.clock = target.clock
        self.reply_to: ReplyTo = target.own.get("reply_to", ReplyTo.INBOX)
        self.random = random if random is not None else random_module.random
        self.listeners = checked(listeners)
        self.driver: Driver[Broker] = Driver(target)
        self._runtime = runtime
        self._unclosed: Callable[[], Unclosed | None] = lambda: None
        self.reach = reach = Reach(self, "broker")
        patience = self.timeout * AT_ONCE
        self.SEND = Op("send", self._send, repeatable=False, patience=patience, reach=reach)
        self.RECEIVE = Op("receive", _receive, repeatable=False, apart=id, patience=self.timeout * LATE, reach=reach)
        self.SETTLE = Op(
            "settle",
            self._settle,
            repeatable=True,
            apart=_first_part,
            denies=lambda answer: False,
            patience=patience,
            reach=reach,
        )
        self.EXTEND = Op("extend", self._extend, repeatable=True, apart=_first_part, patience=patience, reach=reach)
        self.CALL = Op("call", self._call, repeatable=False, apart=id, patience=patience, reach=reach)
        # It may ask the backend nothing: that it returns is no answer, and it is made whatever the backend does.
        self.LOCAL = Op("call", self._call, repeatable=False, apart=id)
        self._fresh()
        watch_forks(self)

    def _fresh(self) -> None:
        self.runtime = self._runtime(self.clock)
        self.mutex = threading.Lock()
        self.fetches, self.settlements, self.sends = (
            lane(self.clock, f"narrowboat-{self.backend}-{what}", self.capabilities.concurrency)
            for what in ("fetches", "settlements", "sends")
        )
        self.timer = timer(self.clock, f"narrowboat-{self.backend}-extension", self._extend_kept)
        self.closed = False
        self.consumers: set[Ends] = set()  #: those that are open
        self.kept: set[Kept] = set()  #: those with leases that the timer extends
        self.requests: Any = None  #: what `requests.requests_of` made
        self.enlists: Broker | None = None  #: the driver, once it has answered a first `send_in`

    # -- the driver, as the lanes call it -------------------------------------------------------------------------

    def _send(self, messages: Sequence[Outgoing]) -> list[Any]:
        try:
            driver = self.driver.get()
        except Unavailable as error:  # there is no connection yet, so nothing was sent
            return [not_sent(message, self.backend, error) for message in messages]
        most = self.capabilities.batch_max
        answers: list[Any] = []
        down: Exception | None = None
        try:
            for start in range(0, len(messages), most):
                chunk = messages[start : start + most]
                if down is not None:  # each further try would cost its callers another time-out
                    answers += [not_sent(message, self.backend, down) for message in chunk]
                    continue
                try:
                    found: Sequence[Any] = driver.send(chunk)
                except Exception as error:
                    answers += [unpublished(message, self.backend, error) for message in chunk]
                    down = error
                else:
                    if not _RECEIPTS.issuperset(map(type, found)):  # in C: it is asked of each message
                        found = [
                            unpublished(message, self.backend, answer) if isinstance(answer, Unavailable) else answer
                            for message, answer in zip(chunk, found, strict=True)
                        ]
                    answers += found
            return answers
        finally:
            answers, down = [], None  # an error's traceback leads here: the two would keep each other, and who gets it

    def _extend_kept(self, late: float) -> float:
        return min((kept.look() for kept in list(self.kept)), default=math.inf)

    def _settle(self, items: Sequence[tuple[Feed, Delivery, Outcome]]) -> list[Any]:
        if not items:
            return []  # `Settlement.flush`: the caller only waits for what is queued before it
        return self._in_parts([(delivery, outcome) for _, delivery, outcome in items], items[0][0].settle)

    def _extend(self, items: Sequence[tuple[tuple[Feed, float], Delivery]]) -> list[Any]:
        feed, seconds = items[0][0]
        return self._in_parts([delivery for _, delivery in items], lambda part: feed.extend(part, seconds))

    def _in_parts(self, items: Sequence[T], act: Callable[[Sequence[T]], Sequence[Any]]) -> list[Any]:
        """`act` on the items of one feed, on so many at a time as it takes. A part that fails is no other part's error."""
        most = self.capabilities.batch_max
        if len(items) <= most:
            return list(act(items))
        answers: list[Any] = []
        for start in range(0, len(items), most):
            part = items[start : start + most]
            try:
                answers += act(part)
            except Exception as error:
                answers += [error] * len(part)
        return answers

    def _call(self, calls: Sequence[Callable[[Broker], Any]]) -> list[Any]:
        answers: list[Any] = []
        try:
            for call in calls:
                try:
                    answers.append(call(self.driver.get()))
                except Exception as error:
                    answers.append(error)
            return answers
        finally:
            answers = []  # as above

    # -- what the loops share -------------------------------------------------------------------------------------

    @property
    def opened(self) -> bool:
        """Whether it has a connection or a thread."""
        return self.driver.opened or self.sends.opened or self.fetches.opened or self.settlements.opened

    def unclosed(self) -> Unclosed:
        """The mark of the face, for it and for all that comes from it."""
        mark = self._unclosed()
        if mark is None:
            mark = Unclosed(self, "Messaging")
            self._unclosed = weakref.ref(mark)
        return mark

    def check_open(self) -> None:
        """Raise `Closed` after `close`."""
        if self.closed:
            raise Closed(f"{self.backend} broker: used after close()", backend=self.backend)

    async def ask(self, question: Callable[[Broker], T], undo: Callable[[T], None] | None = None, *, local: bool = False) -> T:
        """A plain call: declare, depth, purge, ping. `undo` gets the answer when the caller has left meanwhile.

        `local`: it may make no round trip, so that it returns says nothing of the backend.
        """
        self.check_open()

        def orphaned(call: Call) -> None:
            if undo is not None and call.results and not isinstance(call.results[0], Exception):
                undo(call.results[0])

        result: T = await answer_of(
            self.runtime, self.fetches, Call(self.LOCAL if local else self.CALL, (question,), undo=orphaned)
        )
        return result

    async def publish(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        """Send them, once; one answer for each. Cancelled meanwhile, the outcome is unknown to everybody."""
        self.check_open()
        call = Call(self.SEND, messages)
        answers = await self.runtime.call(self.sends, call)
        call.results = []  # an error leads to frames that know this call
        try:
            if answers and isinstance(answers[0], Unavailable):  # the lane's own: the driver was not called, or gave up
                answers = [unpublished(*each) for each in zip(messages, repeat(self.backend), answers)]
            if self.listeners:
                self._tell_published(messages, answers)
            return answers
        finally:
            del answers  # and to this frame: from Python 3.12 on it would keep them

    def _tell_published(self, messages: Sequence[Outgoing], answers: Sequence[Any]) -> None:
        for message, answer in zip(messages, answers, strict=True):
            source = message.to.path
            if isinstance(answer, Receipt):
                events.emit(self.listeners, events.Published(self.backend, source, message.id, answer.duplicate))
            else:
                events.emit(self.listeners, events.PublishError(self.backend, source, message.id, answer))

    def tell(self, source: str, id: str, problem: str) -> None:
        """Report a message of another program that could not be parsed, or not be kept whole, to listeners and the log."""
        fields: dict[str, Any] = {"backend": self.backend, "source": source, "message_id": id}
        log("WARNING", "message %r from %r: %s", id, source, problem, event="malformed", **fields)
        if self.listeners:
            events.emit(self.listeners, events.Malformed(self.backend, source, id, problem))

    def register(self, consumer: Ends) -> None:
        """A consumer has been opened; `Closed` where the broker was closed meanwhile."""
        with self.mutex:
            if self.closed:
                raise Closed(f"{self.backend} broker: closed while opening a consumer", backend=self.backend)
            self.consumers.add(consumer)

    def deadline(self, sent: float, lease: float) -> float:
        """Until when a delivery is ours by our own clock; without end where its lease hangs on something else."""
        if self.capabilities.lease is not LeaseNature.MESSAGE:
            return float("inf")
        return deadline(sent, lease)

    def silent(self, begun: float) -> bool:
        """Whether a step that began at `begun` has used up an operation timeout. The next step would cost another one."""
        return self.clock() - begun >= self.timeout * SILENT

    # -- the end --------------------------------------------------------------------------------------------------

    def begin_close(self) -> bool:
        """Refuse new calls and wake the callers that wait. False: it was closed already."""
        with self.mutex:
            if self.closed:
                return False
            self.closed = True
            consumers = list(self.consumers)
        for consumer in consumers:
            consumer.broker_closes()
        return True

    def finish_close(self) -> None:
        """Return what was not started, stop the lanes and threads, close the driver. One operation timeout and a fifth at most.

        Where a fetch under way has used that up, nothing is returned: another call to a silent backend would wait as long.
        """
        begun = self.clock()

        def left() -> float:
            return max(0.0, begun + self.timeout - self.clock())

        self.sends.close(left())
        self.timer.close()
        self.fetches.close(left())  # afterwards no receive is under way, so what is buffered is all there is
        if not self.silent(begun):
            for consumer in list(self.consumers):
                consumer.post_return()
        self.settlements.close(left())
        self.driver.close(self.clock() - begun)
        self.reach.close()
        self.consumers.clear()

    def forked(self) -> None:
        """In a forked child: connection, consumers and deliveries are the parent's."""
        closed, consumers = self.closed, list(self.consumers)
        self._fresh()
        self.closed = closed
        self.driver.forget()
        self.reach.forget()
        for consumer in consumers:
            consumer.forked()


def _tells(reference: weakref.ref[BrokerCore]) -> Callable[[str, str, str], None]:
    """What a driver calls that could not keep a message whole. It keeps no core alive that everybody else has let go of."""

    def tell(source: str, id: str, problem: str) -> None:
        core = reference()
        if core is not None:
            core.tell(source, id, problem)

    return tell


def _first_part(call: Call) -> object:
    """What a settlement or an extension goes to; itself for one that only waits for what is queued before it."""
    return call.items[0][0] if call.items else call


def _receive(items: Sequence[tuple[Fetches, int]]) -> list[Any]:
    answers: list[Any] = []
    for consumer, limit in items:
        try:
            answers.append(consumer.fetch(limit))
        except Exception as error:
            answers.append(error)
    return answers
