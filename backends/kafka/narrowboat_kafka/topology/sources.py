"""Queues, topics and subscriptions as topics and groups of the server: made, found, compared, deleted.

What is in them is `contents.py`'s; which topic and which group is whose is said by `names.py`. Safe from any thread but the
I/O thread.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from narrowboat.contract import Address, Kind, Properties, Source
from narrowboat.driver.sources import DEAD, Declare, altered, properties_in
from narrowboat.driver.texts import cut
from narrowboat.errors import Conflict, NotFound, Unsupported
from narrowboat_kafka.alone import Alone
from narrowboat_kafka.client import Code, Committed, Edge
from narrowboat_kafka.connections import Connections
from narrowboat_kafka.errors import REFUSALS
from narrowboat_kafka.format import levels
from narrowboat_kafka.options import SCHEME, Groups, Options
from narrowboat_kafka.topology import names
from narrowboat_kafka.topology.declared import Declarations
from narrowboat_kafka.topology.offsets import Offsets
from narrowboat_kafka.topology.topics import Topics


class Sources:
    """See the module's text. `connections`: for times and texts. `heard`: told of each topic that may have been made."""

    def __init__(
        self, connections: Connections, topics: Topics, offsets: Offsets, options: Options, *, heard: Callable[[str], None]
    ) -> None:
        self._topics = topics
        self._offsets = offsets
        self._options = options
        self._prefix = options.prefix
        self._place = connections.place
        self._heard = heard
        self._declarations = Declarations(offsets, options.prefix)
        self._kinds: dict[str, str] = {}  #: what each topic is, once it was looked at
        self._declared: dict[Address, Properties] = {}
        self._turns = Alone(connections.place, connections.timeout)

    # -- the topics of a source -----------------------------------------------------------------------------------

    def topic(self, address: Address) -> str:
        """The topic of `address`, which is made if it is not there. `Conflict` where its name is something else."""
        name = names.topic(address, self._prefix)
        kind = "topic" if address.kind in (Kind.TOPIC, Kind.SUBSCRIPTION) else "queue"
        if self._kinds.get(name) == kind and self._topics.knows(name):
            return name
        dead = address.name.endswith(DEAD)
        # Dead letters lie in one partition, so that they can be looked at in the order in which they died.
        partitions = 1 if dead else self._options.spread
        retention = self._options.retention if kind == "topic" else 0.0
        self._topics.ensure(name, partitions, retention, f"{kind} {address.name!r}", large=dead)
        self._check_kind(Address(Kind.QUEUE if kind == "queue" else Kind.TOPIC, address.name), name, kind)
        return name

    def retry(self, address: Address) -> str:
        """The retry topic of a queue or subscription, which is made if it is not there."""
        return self._waiting(names.retry(address, self._prefix), address)

    def delayed(self, address: Address) -> str:
        """Where delayed messages of a topic wait, which is made if it is not there."""
        return self._waiting(names.delayed(address, self._prefix), address)

    def _waiting(self, name: str, address: Address) -> str:
        what = f"topic {name!r}, in which messages of {address.path!r} wait"
        self._topics.ensure(name, levels.count(self._options.delay_max), 0.0, what, large=True)
        self._heard(name)
        return name

    def forget(self, *topics: str) -> None:
        """Look for these topics again at their next use: they may be gone."""
        self._topics.forget(*topics)
        for topic in topics:
            self._kinds.pop(topic, None)
        self._declared.clear()

    def check_there(self, address: Address) -> None:
        """`NotFound` where nothing is made on the way and it is not there."""
        if self._options.declare is Declare.NEVER and not self._topics.is_there(names.topic(address, self._prefix)):
            raise NotFound(
                f"there is no {address.kind.value} {address.path!r} on {self._place}, and the URL says declare=never. "
                "Use a URL with declare=auto once, or correct the name",
                backend=SCHEME,
            )

    # -- declaring ------------------------------------------------------------------------------------------------

    def _alone(self, topic: str) -> AbstractContextManager[None]:
        """Held while what was declared is read and written."""
        return self._turns.at(topic, f"looking up what {topic!r} was declared with")

    def _check_kind(self, address: Address, topic: str, kind: str) -> None:
        with self._alone(topic):
            stored = self._declarations.read(address, topic)
            if stored is None:
                self._declarations.write(address, topic, {"kind": kind})
            elif stored["kind"] != kind:
                raise REFUSALS.taken(address.name, cut(stored["kind"], 40), kind)
            self._kinds[topic] = kind

    def declare(self, source: Source, *, earliest: bool) -> bool:
        """Make it if it is not there; refuse it where it differs. Whether it was declared just now, for the first time."""
        address, properties = source
        topic = self.topic(address)
        if address.kind is Kind.TOPIC or self._declared.get(address) == properties:
            return False
        with self._alone(topic):
            stored = self._declarations.read(address, topic)
            new = stored is None or "lease" not in stored
            if stored is None or new:
                if address.kind is Kind.SUBSCRIPTION:
                    self._begin(address, topic, earliest=earliest)
                kind = "queue" if address.kind is Kind.QUEUE else "subscription"
                groups = {} if self._options.groups is Groups.CLASSIC else {"groups": self._options.groups.value}
                self._declarations.write(address, topic, {"kind": kind, **properties._asdict(), **groups})
            else:
                self._compare(address, stored, properties)
            self._declared[address] = properties
            return new

    def _compare(self, address: Address, stored: dict[str, Any], properties: Properties) -> None:
        groups = stored.get("groups", Groups.CLASSIC.value)
        if groups != self._options.groups.value:
            raise Conflict(
                f"{address.path!r} was declared with groups={cut(str(groups), 40)} and is asked for with "
                f"groups={self._options.groups.value}: what one has settled the other would deliver again. Write "
                "?groups= as it was declared, or empty it and delete it first",
                backend=SCHEME,
            )
        known = {name: stored[name] for name in Properties._fields if isinstance(stored.get(name), int | float)}
        strange = [name for name in Properties._fields if name not in known]
        more = f"what is stored of {', '.join(strange)} is no number" if strange else ""
        if refused := REFUSALS.differs(address.path, known, properties, more=more):
            raise refused
        if self._options.groups is Groups.SHARE and known["lease"] != properties.lease:
            raise Conflict(
                f"{address.path!r} is asked for with a lease of {properties.lease:g} s and has one of {known['lease']:g} s: "
                "the members of a share group have one lease. Nothing was changed. Ask for no lease, or for that one",
                backend=SCHEME,
            )

    def stored(self, address: Address) -> Properties | None:
        """What it was declared with, or altered to; None where it was not, or what is stored is none of ours."""
        topic = names.topic(address, self._prefix)
        if address.kind is Kind.TOPIC or not self._topics.is_there(topic):
            return None
        found = self._declarations.read(address, topic) or {}
        known = {name: value for name in Properties._fields if isinstance(value := found.get(name), int | float)}
        return properties_in(known) if len(known) == len(Properties._fields) else None

    def alter(self, address: Address, lease: float | None, limit: int | None) -> Properties:
        """Store another lease or limit; what is None stays."""
        if lease is not None and self._options.groups is Groups.SHARE:
            raise Unsupported(
                f"altering the lease of {address.path!r}: the members of a share group have one lease, and those that run "
                "would go by the old one. Nothing was changed. Declare another queue with it, publish there, and consume "
                "this one until it is empty",
                backend=SCHEME,
            )
        topic = names.topic(address, self._prefix)
        with self._alone(topic):
            found = self.stored(address)
            if found is None:
                raise REFUSALS.undeclared(address.path, address.kind.value)
            made = altered(found, lease, limit)
            self._declarations.write(address, topic, {**(self._declarations.read(address, topic) or {}), **made._asdict()})
            return made

    def _begin(self, address: Address, topic: str, *, earliest: bool) -> None:
        """A new group begins here, with an offset committed for each partition: "latest" would be as of its first look."""
        group = names.group(address, self._prefix)
        partitions = self._topics.partitions(topic)
        if not self._offsets.committed(group, partitions):
            offsets = self._offsets.at(partitions, Edge.EARLIEST if earliest else Edge.LATEST)
            # Where it has members, it has begun already.
            self._offsets.commit(group, {tp: Committed(offset, "") for tp, offset in offsets.items()})

    # -- deleting -------------------------------------------------------------------------------------------------

    def delete(self, address: Address) -> bool:
        """Remove it with its messages. False when it was not there."""
        topic = names.topic(address, self._prefix)
        if not self._topics.is_there(topic):
            self.forget(topic)
            return False
        if address.kind is Kind.SUBSCRIPTION:
            return self._delete_subscription(address, topic)
        gone, groups = [topic], [names.declared(address, self._prefix)]
        if address.kind is Kind.TOPIC:
            gone.append(names.delayed(address, self._prefix))
            head, tail = f"{topic}.", ".retry"
            for found in self._topics.all():
                if found.startswith(head) and found.endswith(tail) and "." not in found[len(head) : -len(tail)]:
                    gone.append(found)
                    groups.append(found[: -len(tail)])
        else:
            gone.append(names.retry(address, self._prefix))
            groups += [names.group(address, self._prefix), names.moving(address, self._prefix)]
        self._topics.delete(*gone)
        self.forget(*gone)
        # With the topics their offsets have gone; a group that still has members stays, empty-handed.
        self._offsets.delete_groups(groups)
        return True

    def _delete_subscription(self, address: Address, topic: str) -> bool:
        if self._declarations.read(address, topic) is None:
            return False
        group, retry = names.group(address, self._prefix), names.retry(address, self._prefix)
        met = self._offsets.delete_groups([group])
        if any(each.code == Code.NON_EMPTY_GROUP for each in met):
            raise Conflict(f"{address.path!r} cannot be deleted while it is consumed. Stop its consumers first", backend=SCHEME)
        for error in met:
            if error.code == Code.GROUP_AUTHORIZATION_FAILED:
                raise error
        self._declarations.forget(address)
        self._topics.delete(retry)
        self.forget(retry)
        return True
