"""What has to be on the server: two topics and a group for each source. Made when first used, and remembered.

A queue is a topic, a topic for what is delayed, and a group that reads both, from the first message on. A topic of ours is
such a pair with a group that nobody reads by: it says that the name is taken. A subscription is a group on a topic's pair,
which begins with what is published after it was made: its offsets are set before the group is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from narrowboat.contract import Address, Depth, Kind, Properties, Source
from narrowboat.driver.sources import DEAD, altered, has_dead_letters
from narrowboat.driver.turn import turn
from narrowboat.errors import Unsupported
from narrowboat_rocketmq.admin import Admin, Known
from narrowboat_rocketmq.errors import missing, refusals
from narrowboat_rocketmq.link import Link
from narrowboat_rocketmq.names import Place, place
from narrowboat_rocketmq.options import SCHEME, Options

T = TypeVar("T")

#: Types of topics, as the server calls them.
_PLAIN, _ORDERED, _DELAYED = "NORMAL", "FIFO", "DELAY"


class Sources:
    """See the module's text. From any thread."""

    def __init__(self, link: Link, options: Options) -> None:
        self._link = link
        self._options = options
        self._mutex = threading.Lock()
        self._locks: dict[Address, threading.Lock] = {}
        self._known: set[Address] = set()
        self._ordered: set[str] = set()  #: topics of which each message needs a group, as far as we have heard

    def place(self, address: Address) -> Place:
        """Where `address` is."""
        return place(address, self._options.prefix)

    def is_ordered(self, topic: str) -> bool:
        """Whether each message of a topic needs a group."""
        return topic in self._ordered

    def turn(self, topic: str, *, was: bool) -> None:
        """The proxy says that the topic is of the other type than we took it for."""
        if was:
            self._ordered.discard(topic)
        else:
            self._ordered.add(topic)

    def forget(self, address: Address) -> None:
        """Look again before it is used: it may not be there any more."""
        self._known.discard(address)

    # -- making ---------------------------------------------------------------------------------------------------

    def ensure(self, address: Address, *, always: bool = False) -> None:
        """Make what is published to. `always`: also where the URL says never, for dead letters."""
        if address not in self._known and (self._options.makes or (always and self._link.names is not None)):
            self._make(address, None, f"publishing to {address.path!r}", prepares=True)

    def declare(self, source: Source) -> None:
        """Make it with these properties, or find it with them."""
        address, doing = source.address, f"declaring {source.address.path!r}"
        if self._options.makes:
            properties = None if address.kind is Kind.TOPIC else source.properties
            self._make(address, properties, doing)
        elif self._link.names is not None:
            self._link.administer(lambda admin: self._find(admin, source), doing)

    def stored(self, address: Address) -> Properties | None:
        """What it was declared with, or altered to."""
        return self._administer(lambda admin: self._stored(admin, address), f"looking up {address.path!r}")

    def _stored(self, admin: Admin, address: Address) -> Properties | None:
        spot = self.place(address)
        known = self._look(admin, spot)
        if known is not None:
            self._check(spot, known, None)
        return None if known is None or address.kind is Kind.TOPIC else known.properties

    def alter(self, address: Address, lease: float | None, limit: int | None) -> Properties:
        """Store another lease or limit with the group; what is None stays."""

        def work(admin: Admin) -> Properties:
            spot, found = self.place(address), self._stored(admin, address)
            if found is None:
                raise refusals.undeclared(spot.path, address.kind.value)
            made = altered(found, lease, limit)
            admin.make_group(spot, made, admin.group(spot.group).config)
            return made

        return self._administer(work, f"altering {address.path!r}")

    def _find(self, admin: Admin, source: Source) -> None:
        spot = self.place(source.address)
        known = self._look(admin, spot)
        if known is None or (known.kind is None and source.address.kind is Kind.SUBSCRIPTION):
            raise missing(spot)
        self._check(spot, known, None if source.address.kind is Kind.TOPIC else source.properties)

    def _look(self, admin: Admin, spot: Place) -> Known | None:
        """What is there; None where nothing is. The topic first: a broker that is asked for a group makes it."""
        return admin.group(spot.group) if admin.queues(spot.topic) else None

    def _make(self, address: Address, properties: Properties | None, doing: str, *, prepares: bool = False) -> None:
        with self._mutex:
            alone = self._locks.setdefault(address, threading.Lock())
        ends, behind = self._link.ends(), TimeoutError("a call before this one still waits for it")
        with turn(alone, self._link.timeout, lambda: self._link.no_admin(behind, doing, prepares=True)):
            self._link.administer(lambda admin: self._declare(admin, address, properties), doing, ends, prepares=prepares)
            self._known.add(address)

    def _declare(self, admin: Admin, address: Address, properties: Properties | None) -> None:
        spot = self.place(address)
        if address.kind is Kind.SUBSCRIPTION:
            topic = Address(Kind.TOPIC, address.name)
            if topic not in self._known:
                self._declare(admin, topic, None)
                self._known.add(topic)
        known = self._look(admin, spot)
        stored = None if known is None else known.properties
        if known is not None:
            self._check(spot, known, properties)
        ordered = properties is not None and properties.ordered
        if ordered or (stored is not None and stored.ordered):
            self._ordered.add(spot.topic)
        self._topics(admin, spot, ordered=ordered and stored is None)
        known = known or admin.group(spot.group)
        if known.kind is None or (properties is not None and stored is None):
            if address.kind is not Kind.TOPIC and known.kind is None:
                admin.start(spot, spot.topics, at_end=address.kind is Kind.SUBSCRIPTION)
            admin.make_group(spot, properties, known.config)

    def _topics(self, admin: Admin, spot: Place, *, ordered: bool) -> None:
        queues = 1 if spot.path.endswith(DEAD) else self._options.queues  # dead letters lie in the order in which they died
        if ordered or not admin.queues(spot.topic):
            admin.make_topic(spot.topic, _ORDERED if ordered else _PLAIN, queues)
        if not admin.queues(spot.later):
            admin.make_topic(spot.later, _DELAYED, 1)

    def _check(self, spot: Place, known: Known, properties: Properties | None) -> None:
        """Raise `Conflict` where what is there is something else."""
        if known.kind is not None and known.kind is not spot.address.kind:
            raise refusals.taken(spot.path, known.kind.value, spot.address.kind.value)
        if properties is not None and known.properties is not None:
            conflict = refusals.differs(spot.path, known.properties._asdict(), properties)
            if conflict is not None:
                raise conflict

    # -- looking and removing -------------------------------------------------------------------------------------

    def depth(self, address: Address) -> Depth:
        """How many are ready and dead, by the offsets of the group; None where there is no administration."""
        if self._link.names is None:
            return Depth(None, None, None, None)
        doing = f"counting {address.path!r}"
        ready = self._link.administer(lambda admin: self._waiting(admin, address), doing)
        dead = (
            self._link.administer(lambda admin: self._waiting(admin, address.dead, dead=True), doing)
            if has_dead_letters(address)
            else 0
        )
        return Depth(ready, None, None, dead)

    def _waiting(self, admin: Admin, address: Address, *, dead: bool = False) -> int:
        spot = self.place(address)
        if admin.queues(spot.topic):
            return admin.waiting(spot, spot.topics)
        if dead or self._options.makes:
            return 0
        raise missing(spot)

    def purge(self, address: Address) -> int:
        """Pass over what is ready. What is delayed and not due stays; so does what is in flight."""
        if address.kind is Kind.TOPIC:
            return 0

        def work(admin: Admin) -> int:
            spot = self.place(address)
            if admin.queues(spot.topic):
                return admin.skip(spot, spot.topics)
            if self._options.makes:
                return 0
            raise missing(spot)

        return self._administer(work, f"purging {address.path!r}")

    def delete(self, address: Address) -> bool:
        """Remove it. False when it was not there."""

        def work(admin: Admin) -> bool:
            spot = self.place(address)
            known = self._look(admin, spot)
            if known is None or (known.kind is not address.kind and address.kind is Kind.SUBSCRIPTION):
                return False
            if address.kind is Kind.TOPIC:
                for group in admin.subscriptions(spot.topic):
                    admin.delete(group, spot.topics, kept=True)
            admin.delete(spot.group, spot.topics, kept=address.kind is Kind.SUBSCRIPTION)
            return True

        with self._mutex:
            for each in [known for known in self._known if known.name == address.name]:
                self._known.discard(each)
            self._ordered.discard(self.place(address).topic)
        return self._administer(work, f"deleting {address.path!r}")

    def _administer(self, work: Callable[[Admin], T], doing: str) -> T:
        if self._link.names is None:
            raise Unsupported(
                f"{doing}: a proxy cannot. Name the name server in the URL, ?admin=host:9876, where it can be reached.",
                backend=SCHEME,
            )
        return self._link.administer(work, doing)
