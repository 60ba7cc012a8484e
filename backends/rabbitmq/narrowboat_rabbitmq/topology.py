"""What has to be on the server: queues, topics, the ladder. Declared when first used, and again on a new connection.

Every declaration is idempotent, so that is all the state there is: what this process has declared since the connection
was made. Refused calls cost their channel, so channels for this are taken from a few that are kept.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from narrowboat.contract import Address, Depth, Kind, Properties
from narrowboat.errors import Conflict, NarrowboatError, NotFound
from narrowboat_rabbitmq.channel import Channel, Step, persevere
from narrowboat_rabbitmq.errors import Operation, concerns_properties, missing, other_properties
from narrowboat_rabbitmq.ladder import Ladder, destination, pattern, ticks
from narrowboat_rabbitmq.link import Link, Session
from narrowboat_rabbitmq.names import STANDS_FOR, Place, escape, place_of, properties_exchange, queue_arguments, write
from narrowboat_rabbitmq.options import Declare, Options

#: Idle channels that are kept.
_KEPT = 4
#: What nobody receives any more is kept for so long, and so many, for people to look at.
_GONE_TTL, _GONE_MAX = 24 * 3600 * 1000, 1000


class Topology:
    """See the module's text. Callers wait in its methods for up to the deadline."""

    def __init__(self, link: Link, options: Options) -> None:
        self.link = link
        self.makes = options.declare is Declare.AUTO
        self._prefix = options.prefix
        self.ladder = Ladder.of(escape(options.prefix))
        self._arguments = queue_arguments(options)
        self._places: dict[Address, Place] = {}
        self._locks: dict[Address, threading.Lock] = {}
        self._ladder = threading.Lock()
        self._idle: list[Channel] = []
        self._session: Session | None = None
        self._known: set[Address] = set()
        self._due: set[Address] = set()  # which the ladder's end knows
        self._levels = -1  # up to which the ladder was declared

    def place(self, address: Address) -> Place:
        """Where it lies."""
        place = self._places.get(address)
        if place is None:
            place = self._places[address] = place_of(address, self._prefix)
        return place

    def known(self, address: Address) -> bool:
        """Whether it was there when last looked, on this connection."""
        return address in self._known and self._session is self.link.session

    def forget(self, address: Address) -> None:
        """It may not be there any more."""
        self._known.discard(address)
        self._due.discard(address)

    # -- making ---------------------------------------------------------------------------------------------------

    def use(self, address: Address, deadline: float) -> None:
        """Make what is published to, without saying what it is declared with; `NotFound` where nothing is to be made."""
        if self.known(address) or address.kind is Kind.INBOX:
            return
        place = self.place(address)
        with self._alone(address):
            if not self.known(address):
                operation = Operation(f"publishing to {place.path!r}", deadline, place, prepares=True)
                self._make(place, None, operation, makes=self.makes)

    def declare(self, address: Address, properties: Properties, deadline: float) -> None:
        """Make it with these properties, or find it with them."""
        place = self.place(address)
        with self._alone(address):
            try:
                self._make(place, properties, Operation(f"declaring {place.path!r}", deadline, place), makes=self.makes)
            except Conflict as error:
                raise self._difference(place, properties, error, deadline) from error

    def _difference(self, place: Place, asked: Properties, error: Conflict, deadline: float) -> Conflict:
        """The same, with what is stored."""
        if not concerns_properties(error):
            return error
        operation = Operation(f"declaring {place.path!r}", deadline, place)
        try:
            with self._channel(operation) as channel:
                channel.call([_kept(place, {})], operation)  # it is there, and differs from this as well
        except Conflict as answer:
            return other_properties(place, asked, answer)
        except NarrowboatError:
            pass
        return error

    def _alone(self, address: Address) -> threading.Lock:
        """Held while an address is made: a server may crash where one declares what another is just declaring."""
        return self._locks.setdefault(address, threading.Lock())

    def _make(self, place: Place, properties: Properties | None, operation: Operation, *, makes: bool) -> None:
        def work() -> None:
            with self._channel(operation) as channel:
                channel.call(self._steps(place, properties) if makes else [_look(place)], operation)
                self._known.add(place.address)
                if makes:
                    self._due.add(place.address)

        persevere(work, self.link.loop.clock, operation.deadline)

    def delay(self, address: Address, level: int, deadline: float) -> None:
        """Make the ladder up to `level`, and let its end know the destination."""
        place = self.place(address)
        if not self._reaches(address, level):
            with self._ladder:
                if not self._reaches(address, level):
                    persevere(lambda: self._extend(place, level, deadline), self.link.loop.clock, deadline)

    def _reaches(self, address: Address, level: int) -> bool:
        return self._session is self.link.session and level <= self._levels and address in self._due

    def _extend(self, place: Place, level: int, deadline: float) -> None:
        operation = Operation(f"publishing to {place.path!r} with a delay", deadline, place, prepares=True)
        with self._channel(operation) as channel:
            if level > self._levels:
                steps: list[Step] = [*_foundation(self.ladder)] if self._levels < 0 else []
                for each in range(self._levels + 1, level + 1):
                    steps += _rung(self.ladder, each)
                channel.call(steps, operation)
                self._levels = level
            if place.address not in self._due:
                channel.call([_look(place), _bind_due(self.ladder, place)], operation)
                self._due.add(place.address)

    def bury(self, address: Address, deadline: float) -> None:
        """Make a queue for dead letters, whatever the URL says: it is a part of its source, and they must go somewhere."""
        if self.known(address):
            return
        place = self.place(address)
        with self._alone(address):
            if not self.known(address):
                self._make(place, None, Operation(f"declaring {place.path!r}", deadline, place), makes=True)

    def ping(self, deadline: float) -> None:
        """One round trip."""
        operation = Operation("answering a ping", deadline)
        with self._channel(operation) as channel:
            channel.call([("basic_qos", {"prefetch_count": 0})], operation)

    def _steps(self, place: Place, properties: Properties | None = None) -> list[Step]:
        """What makes a queue, topic or subscription; what may be refused comes first."""
        kind = place.address.kind
        stands: Step = ("exchange_declare", {"exchange": place.name, "exchange_type": STANDS_FOR[kind], "durable": True})
        queue: Step = ("queue_declare", {"queue": place.name, "durable": True, "arguments": self._arguments})
        steps = [stands]
        if kind is Kind.SUBSCRIPTION:
            topic = {"exchange": place.topic, "exchange_type": STANDS_FOR[Kind.TOPIC], "durable": True}
            steps.insert(0, ("exchange_declare", topic))
        if kind is not Kind.TOPIC:
            if properties is not None:
                steps.append(_kept(place, {"alternate-exchange": write(properties)}))
            steps.append(queue)
        if kind is Kind.SUBSCRIPTION:
            steps.append(("queue_bind", {"queue": place.name, "exchange": place.topic, "routing_key": ""}))
        # Each time, and not at the first delay only: somebody may have deleted it and made it anew since.
        return [*(_foundation(self.ladder) if not self._due else ()), *steps, _bind_due(self.ladder, place)]

    # -- looking and removing -------------------------------------------------------------------------------------

    def exists(self, place: Place, operation: Operation) -> int | None:
        """How many messages are ready there; None where it is not there. 0 for a topic."""
        try:
            with self._channel(operation) as channel:
                (method,) = channel.call([_look(place)], operation)
                return int(getattr(method, "message_count", 0))
        except NotFound:
            return None

    def depth(self, address: Address, deadline: float) -> Depth:
        """What can be known: the server tells strangers how much is ready, and nothing else."""
        place = self.place(address)
        operation = Operation(f"counting {place.path!r}", deadline, place)
        ready = self.exists(place, operation)
        if ready is None and not self.makes and address.kind is not Kind.INBOX:
            raise missing(place)
        dead = 0
        if address.kind in (Kind.QUEUE, Kind.SUBSCRIPTION) and not place.path.endswith(".dead"):
            dead = self.exists(self.place(address.dead), operation) or 0
        return Depth(ready or 0, None, None, dead)

    def purge(self, address: Address, deadline: float) -> int:
        """Drop what is ready. What is on the ladder stays there: it is shared."""
        place = self.place(address)
        operation = Operation(f"purging {place.path!r}", deadline, place)
        if address.kind is Kind.TOPIC:
            return 0
        try:
            with self._channel(operation) as channel:
                (method,) = channel.call([("queue_purge", {"queue": place.name})], operation)
                return int(method.message_count)
        except NotFound:
            if self.makes:
                return 0
            raise

    def delete(self, address: Address, deadline: float) -> bool:
        """Remove it. False when it was not there."""
        place = self.place(address)
        operation = Operation(f"deleting {place.path!r}", deadline, place)
        if address.kind is Kind.TOPIC:
            # The server does not tell which queues are bound to an exchange: those that we know of.
            groups = {each for each in self._places if each.kind is Kind.SUBSCRIPTION and each.name == address.name}
            for group in groups:
                self.delete(group, deadline)
        there = self.exists(place, operation) is not None
        self.forget(address)
        with self._channel(operation) as channel:
            steps: list[Step] = []
            if address.kind is not Kind.TOPIC:
                steps.append(("queue_delete", {"queue": place.name}))
                steps.append(("exchange_delete", {"exchange": properties_exchange(place.name)}))
            channel.call([*steps, ("exchange_delete", {"exchange": place.name})], operation)
        return there

    # -- channels -------------------------------------------------------------------------------------------------

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


def _kept(place: Place, arguments: dict[str, str]) -> Step:
    """The exchange that keeps what a source was declared with."""
    exchange = properties_exchange(place.name)
    return "exchange_declare", {"exchange": exchange, "exchange_type": "direct", "durable": True, "arguments": arguments}


def _look(place: Place) -> Step:
    if place.address.kind is Kind.TOPIC:
        return "exchange_declare", {"exchange": place.name, "exchange_type": "fanout", "passive": True}
    return "queue_declare", {"queue": place.name, "passive": True}


def _bind_due(ladder: Ladder, place: Place) -> Step:
    key = destination(place.word)
    if place.address.kind is Kind.TOPIC:
        return "exchange_bind", {"destination": place.name, "source": ladder.due, "routing_key": key}
    return "queue_bind", {"queue": place.name, "exchange": ladder.due, "routing_key": key}


def _foundation(ladder: Ladder) -> tuple[Step, ...]:
    """The ladder's end. What finds no destination there must go somewhere: the queues it comes from would keep trying."""
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
