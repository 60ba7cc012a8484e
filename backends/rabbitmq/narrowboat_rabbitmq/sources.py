"""What has to be on the server: queues, topics, the ladder. Declared when first used, and again on a new connection.

Every declaration is idempotent, so that all the state there is says what this process has declared since the connection was
made. A refused call costs its channel, so the channels for this come from a small pool.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from narrowboat.contract import Address, Depth, Kind, Properties
from narrowboat.driver.sources import Declare, altered, has_dead_letters, properties_in
from narrowboat.errors import Conflict, NotFound, Unavailable
from narrowboat_rabbitmq.connection.channel import Channel, Step, retry_crashed
from narrowboat_rabbitmq.connection.link import Link, Session
from narrowboat_rabbitmq.errors import Operation, concerns_properties, missing, refusals, unread
from narrowboat_rabbitmq.options import SCHEME, Options
from narrowboat_rabbitmq.protocol.ladder import Ladder, destination, pattern, ticks
from narrowboat_rabbitmq.protocol.names import (
    STANDS_FOR,
    Route,
    escape,
    properties_exchange,
    queue_arguments,
    read_stored,
    route_of,
    write,
)

#: Idle channels that are kept.
_KEPT = 4
#: How often an alter is tried while others declare the same.
_TRIES = 5
#: Milliseconds for which what nobody receives any more is kept for people to look at, and how many messages.
_GONE_TTL, _GONE_MAX = 24 * 3600 * 1000, 1000


class Sources:
    """See the module's text. Every call ends by its deadline, or soon after."""

    def __init__(self, link: Link, options: Options) -> None:
        self.link = link
        self.auto_declare = options.declare is Declare.AUTO
        self.ladder = Ladder.of(escape(options.prefix))
        self._prefix = options.prefix
        self._arguments = queue_arguments(options)
        self._levels_claimed = "x-max-priority" in self._arguments
        self._routes: dict[Address, Route] = {}
        self._locks: dict[Address, threading.Lock] = {}
        self._ladder = threading.Lock()
        self._idle: list[Channel] = []
        self._session: Session | None = None  # to which what follows belongs
        self._known: set[Address] = set()
        self._due: set[Address] = set()  # which the end of the ladder knows
        self._levels = -1  # up to which the ladder was declared

    def route(self, address: Address) -> Route:
        """Where `address` lies."""
        route = self._routes.get(address)
        if route is None:
            route = self._routes[address] = route_of(address, self._prefix)
        return route

    def known(self, address: Address) -> bool:
        """Whether it was there at the last look, on this connection."""
        return address in self._known and self._session is self.link.session

    def forget(self, address: Address) -> None:
        """Look again before it is used: it may not be there any more."""
        self._known.discard(address)
        self._due.discard(address)

    # -- making ---------------------------------------------------------------------------------------------------

    def declare(self, address: Address, properties: Properties, deadline: float) -> None:
        """Make it with these properties, or find it with them."""
        operation = self._operation("declaring", address, deadline)
        with self._alone(operation):
            try:
                self._make(operation, properties, make=self.auto_declare)
            except Conflict as error:
                if not concerns_properties(error):
                    raise
                # Where queues have no levels, nothing is stored that all consumers would have to agree about.
                if self._levels_claimed and (refused := self._difference(operation, properties)) is not None:
                    raise refused from error
                self._make(operation, None, make=self.auto_declare)

    def stored(self, address: Address, deadline: float) -> Properties | None:
        """What it was declared with or altered to; what the server's text has no room for is as by default.

        None where nothing is stored, and where nothing may be declared: only a declaration tells.
        """
        if address.kind is Kind.TOPIC or not self.auto_declare:
            return None
        operation, defaults = self._operation("looking up", address, deadline), Properties()
        with self._alone(operation):
            if not self._keeps(operation):
                return None
            try:  # mostly, and then without an error in the server's log
                self._call(operation, _kept(_route(operation), {"alternate-exchange": write(defaults)}))
            except Conflict as error:
                if not concerns_properties(error):
                    raise
                found, _ = self._told(operation)
                return properties_in(found)
            return defaults

    def alter(self, address: Address, lease: float | None, limit: int | None, deadline: float) -> Properties:
        """Make anew what keeps its properties. A consumer that comes in between may store its own, and is overruled."""
        operation = self._operation("altering", address, deadline)
        with self._alone(operation):
            if address.kind is Kind.TOPIC or not self._keeps(operation):
                raise refusals.undeclared(address.path, address.kind.value)
            found, _ = self._told(operation)
            if None in (lease, limit) and "max_deliveries" not in found:
                raise unread(address.path)
            wanted = altered(properties_in(found), lease, limit)
            remove: Step = ("exchange_delete", {"exchange": properties_exchange(_route(operation).name)})
            for _ in range(_TRIES):
                with contextlib.suppress(Conflict):
                    self._call(operation, remove, _kept(_route(operation), {"alternate-exchange": write(wanted)}))
                    return wanted
            raise Unavailable(
                f"{address.path!r} was declared anew {_TRIES} times while it was altered, so it may have either. Alter it "
                "again.",
                backend=SCHEME,
            )

    def ensure(self, address: Address, deadline: float) -> None:
        """Make what is published to, without properties; `NotFound` where it is not there and is not made."""
        if address.kind is not Kind.INBOX and not self.known(address):
            self._ensure(self._operation("publishing to", address, deadline, prepares=True), make=self.auto_declare)

    def ensure_dead(self, address: Address, deadline: float) -> None:
        """Make a queue for dead letters, whatever the URL says: it is a part of its source, and they must go somewhere."""
        if not self.known(address):
            self._ensure(self._operation("declaring", address, deadline), make=True)

    def ensure_delay(self, address: Address, level: int, deadline: float) -> None:
        """Make the ladder up to `level`, and let its end know the destination."""
        if not self._reaches(address, level):
            operation = self._operation("publishing with a delay to", address, deadline, prepares=True)
            with self.link.alone(self._ladder, operation):
                if not self._reaches(address, level):
                    self._retried(lambda: self._extend(operation, address, level), operation)

    def _ensure(self, operation: Operation, *, make: bool) -> None:
        address = _route(operation).address
        with self._alone(operation):
            if not self.known(address):
                self._make(operation, None, make=make)

    def _difference(self, operation: Operation, asked: Properties) -> Conflict | None:
        """The refusal where the levels are others than asked; None where they are not, as far as the server tells."""
        found, whole = self._told(operation)
        missing = (
            "" if whole else f"{asked.priorities} priorities were asked, and the server's text has no room for what it has"
        )
        return refusals.differs(_route(operation).path, found, asked, more=missing)

    def _told(self, operation: Operation) -> tuple[dict[str, float], bool]:
        """What is stored, and whether that is all of it. It is there: a declaration that asks for nothing then tells most."""
        try:
            self._call(operation, _kept(_route(operation), {}))
        except Conflict as answer:
            if concerns_properties(answer):
                return read_stored(str(answer.__cause__))
            raise
        return {}, False  # another program made it, with nothing in it

    def _keeps(self, operation: Operation) -> bool:
        """Whether anything is stored."""
        exchange = properties_exchange(_route(operation).name)
        try:
            self._call(operation, ("exchange_declare", {"exchange": exchange, "passive": True}))
        except NotFound:
            return False
        return True

    def _alone(self, operation: Operation) -> AbstractContextManager[object]:
        """Held while an address is made: a server may crash where one declares what another is just declaring."""
        mutex = self._locks.setdefault(_route(operation).address, threading.Lock())
        return self.link.alone(mutex, operation)

    def _make(self, operation: Operation, properties: Properties | None, *, make: bool) -> None:
        route = _route(operation)

        def work() -> None:
            with self._channel(operation) as channel:
                channel.call(self._steps(route, properties) if make else [_look(route)], operation)
                self._known.add(route.address)
                if make:
                    self._due.add(route.address)

        self._retried(work, operation)

    def _retried(self, work: Callable[[], None], operation: Operation) -> None:
        retry_crashed(work, self.link.loop.clock, operation.deadline)

    def _reaches(self, address: Address, level: int) -> bool:
        return self._session is self.link.session and level <= self._levels and address in self._due

    def _extend(self, operation: Operation, address: Address, level: int) -> None:
        route = _route(operation)
        with self._channel(operation) as channel:
            if level > self._levels:
                steps: list[Step] = [*_foundation(self.ladder)] if self._levels < 0 else []
                for each in range(self._levels + 1, level + 1):
                    steps += _rung(self.ladder, each)
                channel.call(steps, operation._replace(route=None))
                self._levels = level
            if address not in self._due:
                channel.call([_look(route), _bind_due(self.ladder, route)], operation)
                self._due.add(address)

    def _steps(self, route: Route, properties: Properties | None = None) -> list[Step]:
        """What makes a queue, topic or subscription; what may be refused comes first."""
        kind = route.address.kind
        stands: Step = ("exchange_declare", {"exchange": route.name, "exchange_type": STANDS_FOR[kind], "durable": True})
        queue: Step = ("queue_declare", {"queue": route.name, "durable": True, "arguments": self._arguments})
        steps = [stands]
        if kind is Kind.SUBSCRIPTION:
            topic = {"exchange": route.topic, "exchange_type": STANDS_FOR[Kind.TOPIC], "durable": True}
            steps.insert(0, ("exchange_declare", topic))
        if kind is not Kind.TOPIC:
            if properties is not None:
                steps.append(_kept(route, {"alternate-exchange": write(properties)}))
            steps.append(queue)
        if kind is Kind.SUBSCRIPTION:
            steps.append(("queue_bind", {"queue": route.name, "exchange": route.topic, "routing_key": ""}))
        # Each time, and not at the first delay only: somebody may have deleted it and made it anew since.
        return [*(_foundation(self.ladder) if not self._due else ()), *steps, _bind_due(self.ladder, route)]

    # -- looking and removing -------------------------------------------------------------------------------------

    def ping(self, deadline: float) -> None:
        """Make one round trip."""
        self._call(Operation("answering a ping", deadline), ("basic_qos", {"prefetch_count": 0}))

    def depth(self, address: Address, deadline: float) -> Depth:
        """What can be known: the server tells others than a queue's consumers how much is ready, and nothing else."""
        operation = self._operation("counting", address, deadline)
        ready = self._ready(operation)
        if ready is None and not self.auto_declare and address.kind is not Kind.INBOX:
            raise missing(_route(operation))
        dead = self._ready(operation._replace(route=self.route(address.dead))) if has_dead_letters(address) else None
        return Depth(ready or 0, None, None, dead or 0)

    def purge(self, address: Address, deadline: float) -> int:
        """Drop what is ready. What is on the ladder stays there: it is shared."""
        if address.kind is Kind.TOPIC:
            return 0
        operation = self._operation("purging", address, deadline)
        try:
            (method,) = self._call(operation, ("queue_purge", {"queue": _route(operation).name}))
        except NotFound:
            if self.auto_declare:
                return 0
            raise
        return int(method.message_count)

    def delete(self, address: Address, deadline: float) -> bool:
        """Remove it. False when it was not there."""
        operation = self._operation("deleting", address, deadline)
        name = _route(operation).name
        if address.kind is Kind.TOPIC:
            # The server does not tell which queues are bound to an exchange: those that we know of.
            groups = {each for each in self._routes if each.kind is Kind.SUBSCRIPTION and each.name == address.name}
            for group in groups:
                self.delete(group, deadline)
        there = self._ready(operation) is not None
        self.forget(address)
        steps: list[Step] = []
        if address.kind is not Kind.TOPIC:
            steps.append(("queue_delete", {"queue": name}))
            steps.append(("exchange_delete", {"exchange": properties_exchange(name)}))
        self._call(operation, *steps, ("exchange_delete", {"exchange": name}))
        return there

    def _ready(self, operation: Operation) -> int | None:
        """How many messages are ready there; None where it is not there. 0 for a topic."""
        try:
            (method,) = self._call(operation, _look(_route(operation)))
        except NotFound:
            return None
        return int(getattr(method, "message_count", 0))

    # -- channels -------------------------------------------------------------------------------------------------

    def _operation(self, doing: str, address: Address, deadline: float, *, prepares: bool = False) -> Operation:
        route = self.route(address)
        return Operation(f"{doing} {route.path!r}", deadline, route, prepares)

    def _call(self, operation: Operation, *steps: Step) -> list[Any]:
        with self._channel(operation) as channel:
            return channel.call(steps, operation)

    @contextlib.contextmanager
    def _channel(self, operation: Operation) -> Iterator[Channel]:
        session = self.link.ready(operation)
        if session is not self._session:  # another connection, perhaps another server: nothing is known of it
            self._known, self._due, self._levels, self._session = set(), set(), -1, session
        channel: Channel | None = None
        with contextlib.suppress(IndexError):
            while channel is None or not channel.alive:
                channel = self._idle.pop()
        if channel is None or not channel.alive:
            channel = Channel.open(self.link, operation)
        done = False
        try:
            yield channel
            done = True
        finally:
            if done and channel.alive and len(self._idle) < _KEPT:
                self._idle.append(channel)
            elif channel.alive:  # cut off in the middle of a call: an answer that comes now is nobody's
                spare = channel
                self.link.loop.post(lambda: spare.drop(RuntimeError("left")))


def _route(operation: Operation) -> Route:
    assert operation.route is not None
    return operation.route


def _kept(route: Route, arguments: dict[str, str]) -> Step:
    """The exchange that keeps what a source was declared with."""
    exchange = properties_exchange(route.name)
    return "exchange_declare", {"exchange": exchange, "exchange_type": "direct", "durable": True, "arguments": arguments}


def _look(route: Route) -> Step:
    if route.address.kind is Kind.TOPIC:
        return "exchange_declare", {"exchange": route.name, "exchange_type": "fanout", "passive": True}
    return "queue_declare", {"queue": route.name, "passive": True}


def _bind_due(ladder: Ladder, route: Route) -> Step:
    key = destination(route.word)
    if route.address.kind is Kind.TOPIC:
        return "exchange_bind", {"destination": route.name, "source": ladder.due, "routing_key": key}
    return "queue_bind", {"queue": route.name, "exchange": ladder.due, "routing_key": key}


def _foundation(ladder: Ladder) -> tuple[Step, ...]:
    """The end of the ladder. What finds no destination there must go somewhere: the queues it comes from would keep trying."""
    gone: dict[str, Any] = {"x-message-ttl": _GONE_TTL, "x-max-length": _GONE_MAX, "x-queue-type": "classic"}
    due = {"exchange": ladder.due, "exchange_type": "topic", "durable": True, "arguments": {"alternate-exchange": ladder.gone}}
    return (
        ("exchange_declare", {"exchange": ladder.gone, "exchange_type": "fanout", "durable": True}),
        ("queue_declare", {"queue": ladder.gone, "durable": True, "arguments": gone}),
        ("queue_bind", {"queue": ladder.gone, "exchange": ladder.gone, "routing_key": ""}),
        ("exchange_declare", due),
    )


def _rung(ladder: Ladder, level: int) -> list[Step]:
    """One level: its exchange, its queue, and where they lead."""
    name, below = ladder.exchange(level), ladder.exchange(level - 1)
    arguments = {
        "x-queue-type": "quorum",
        "x-message-ttl": ticks(level),
        "x-dead-letter-exchange": below,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    return [
        ("exchange_declare", {"exchange": name, "exchange_type": "topic", "durable": True}),
        ("queue_declare", {"queue": name, "durable": True, "arguments": arguments}),
        ("queue_bind", {"queue": name, "exchange": name, "routing_key": pattern(level, 1)}),
        ("exchange_bind", {"destination": below, "source": name, "routing_key": pattern(level, 0)}),
    ]
