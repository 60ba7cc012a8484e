"""Topics and groups: made, found, compared, counted and deleted, through the administration's connection.

What a source was declared with is kept where it needs no topic of its own: in the metadata of an offset committed by a
group of its own (`names.declared`). It goes with the topic.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import kafka.errors as client
from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.structs import OffsetAndMetadata

from narrowboat.contract import Address, Depth, Kind, Properties, Source
from narrowboat.errors import Conflict, NotFound, Unavailable
from narrowboat_kafka import ledger as ledgers
from narrowboat_kafka import levels, names
from narrowboat_kafka import retention as lasting
from narrowboat_kafka.client import EARLIEST, LARGEST, LATEST, Clients
from narrowboat_kafka.ledger import Ledger
from narrowboat_kafka.options import SCHEME, Declare, Options

T = TypeVar("T")

#: Who answers for a group is not known, not ready, or somebody else by now.
_COORDINATOR = (client.CoordinatorNotAvailableError, client.CoordinatorLoadInProgressError, client.NotCoordinatorError)
#: The same, or the connection is still being made: nothing was sent.
_NOT_YET = (*_COORDINATOR, client.NodeNotReadyError, client.TooManyInFlightRequests)
#: Dead letters lie in one partition, so that they can be looked at in the order in which they died.
_DEAD = ".dead"


class Topology:
    """See the module's text. Safe from any thread but the I/O thread."""

    def __init__(self, clients: Clients, options: Options) -> None:
        self._clients = clients
        self._options = options
        self._known: set[str] = set()  #: topics that were there when we looked
        self._looked_at: set[str] = set()  #: topics that were there before we came, told about where they are short-lived
        self._kinds: dict[str, str] = {}
        self._declared: dict[Address, Properties] = {}
        self._mutex = threading.Lock()

    # -- topics ---------------------------------------------------------------------------------------------------

    def topic(self, address: Address) -> str:
        """The topic of `address`, which is made if it is not there. `Conflict` where its name is something else."""
        name = names.topic(address, self._options.prefix)
        kind = "topic" if address.kind in (Kind.TOPIC, Kind.SUBSCRIPTION) else "queue"
        if self._kinds.get(name) == kind and name in self._known:
            return name
        partitions = 1 if address.name.endswith(_DEAD) else self._options.partitions
        retention = self._options.retention if kind == "topic" else 0.0
        self.ensure(name, partitions, retention, f"{kind} {address.name!r}", large=address.name.endswith(_DEAD))
        self._check_kind(Address(Kind.QUEUE if kind == "queue" else Kind.TOPIC, address.name), name, kind)
        return name

    def retry(self, address: Address) -> str:
        """The retry topic of a queue or subscription, which is made if it is not there."""
        return self._waiting(names.retry(address, self._options.prefix), address)

    def delayed(self, address: Address) -> str:
        """Where delayed messages of a topic wait, which is made if it is not there."""
        return self._waiting(names.delayed(address, self._options.prefix), address)

    def _waiting(self, name: str, address: Address) -> str:
        what = f"topic {name!r}, in which messages of {address.path!r} wait"
        self.ensure(name, levels.count(self._options.delay_max), 0.0, what, large=True)
        return name

    def ensure(self, name: str, partitions: int, retention: float, what: str, *, large: bool) -> None:
        """Make the topic if it is not there, and wait until it can be used. `large`: what lies in it was published before."""
        if name in self._known:
            return
        if not self.is_there(name):
            if self._options.declare is Declare.NEVER:
                raise NotFound(
                    f"there is no {what} on {self._clients.place}, and the URL says declare=never. Use a URL with declare=auto "
                    f"once, or create it: kafka-topics.sh --create --topic {name} --partitions {partitions} "
                    "--config retention.ms=-1",
                    backend=SCHEME,
                )
            self._create(name, partitions, retention, large=large)
        elif name not in self._looked_at:
            self._looked_at.add(name)
            self._look_at(name, what)
        self._known.add(name)

    def forget(self, *topics: str) -> None:
        """They may be gone."""
        self._known.difference_update(topics)
        for topic in topics:
            self._kinds.pop(topic, None)
        self._declared.clear()

    def _look_at(self, name: str, what: str) -> None:
        """Say so where a topic that was there already keeps less than the URL promises. Nothing, where we may not look."""
        asked = ConfigResource(ConfigResourceType.TOPIC, name, list(lasting.ALL))
        answer = self._ask(lambda: self._clients.admin.describe_configs([asked], config_filter="all"))
        found = answer.get("topic", {}).get(name, {})
        lasting.report(name, what, {key: each["value"] for key, each in found.items()}, self._options.retention)

    def _create(self, name: str, partitions: int, retention: float, *, large: bool) -> None:
        wanted = {
            "num_partitions": partitions,
            "replication_factor": self._options.replication or -1,
            "configs": lasting.ALL
            | ({"retention.ms": str(int(retention * 1000))} if retention else {})
            | ({"max.message.bytes": str(LARGEST)} if large else {}),
        }
        try:
            self._ask(lambda: self._clients.admin.create_topics({name: wanted}))
        except client.TopicAlreadyExistsError:
            pass
        until = time.monotonic() + self._clients.timeout
        while not self.is_there(name):
            if time.monotonic() >= until:
                raise Unavailable(f"the topic {name!r} was made, and has no leader yet", backend=SCHEME)
            time.sleep(0.01)

    def is_there(self, name: str) -> bool:
        """Whether the topic can be used."""
        for found in self._ask(lambda: self._clients.admin.describe_topics([name])):
            return _is_there(found) and all(each["leader_id"] >= 0 and not each["error_code"] for each in found["partitions"])
        return False

    def _partitions(self, *topics: str) -> list[Any]:
        """The partitions of those of the topics that are there."""
        found = []
        for topic in self._ask(lambda: self._clients.admin.describe_topics(list(topics))):
            if _is_there(topic):
                found += [TopicPartition(topic["name"], each["partition_index"]) for each in topic["partitions"]]
        return found

    # -- what sources were declared with --------------------------------------------------------------------------

    def _read(self, address: Address, topic: str) -> dict[str, Any] | None:
        committed = self._committed(names.declared(address, self._options.prefix), [TopicPartition(topic, 0)])
        for _, text in committed.values():
            try:
                found = json.loads(text)
            except (ValueError, RecursionError):  # somebody else's
                continue
            if isinstance(found, dict) and isinstance(found.get("kind"), str):
                return found
        return None

    def _write(self, address: Address, topic: str, value: dict[str, Any]) -> None:
        text = json.dumps(value)
        group = names.declared(address, self._options.prefix)
        for error in self._alter(group, {TopicPartition(topic, 0): OffsetAndMetadata(0, text, -1)}):
            raise error(group)

    def _check_kind(self, address: Address, topic: str, kind: str) -> None:
        with self._mutex:
            stored = self._read(address, topic)
            if stored is None:
                self._write(address, topic, {"kind": kind})
            elif stored.get("kind") != kind:
                raise Conflict(
                    f"{address.name!r} is a {stored.get('kind')} and cannot be a {kind} as well: queues and topics share one "
                    "namespace. Take another name, or delete the first",
                    backend=SCHEME,
                )
            self._kinds[topic] = kind

    def declare(self, source: Source, *, earliest: bool) -> None:
        """Make it if it is not there; refuse it where it differs."""
        address, properties = source
        topic = self.topic(address)
        if address.kind is Kind.TOPIC or self._declared.get(address) == properties:
            return
        with self._mutex:
            stored = self._read(address, topic)
            if stored is None or "lease" not in stored:
                if address.kind is Kind.SUBSCRIPTION:
                    self._begin(address, topic, earliest=earliest)
                kind = "queue" if address.kind is Kind.QUEUE else "subscription"
                self._write(address, topic, {"kind": kind, **properties._asdict()})
            else:
                self._compare(address, stored, properties)
            self._declared[address] = properties

    def _compare(self, address: Address, stored: dict[str, Any], properties: Properties) -> None:
        wrong = [
            f"{name} is {stored.get(name)!r} and was asked as {want!r}"
            for name, want in properties._asdict().items()
            if stored.get(name) != want
        ]
        if wrong:
            conflict = Conflict(
                f"{address.path!r} is already declared otherwise: {', '.join(wrong)}. Ask for what is stored, or delete it "
                "(with its messages) and declare it anew",
                backend=SCHEME,
            )
            conflict.stored = {name: stored[name] for name in Properties._fields if name in stored}
            raise conflict

    def _begin(self, address: Address, topic: str, *, earliest: bool) -> None:
        """A new group begins here, with an offset committed for each partition: "latest" would be as of its first look."""
        group = names.group(address, self._options.prefix)
        partitions = self._partitions(topic)
        if self._committed(group, partitions):
            return
        offsets = self._offsets(partitions, EARLIEST if earliest else LATEST)
        for error in self._alter(group, {tp: OffsetAndMetadata(offset, "", -1) for tp, offset in offsets.items()}):
            # It has members: then it has begun already.
            if error not in (client.UnknownMemberIdError, client.RebalanceInProgressError):
                raise error(group)

    # -- offsets --------------------------------------------------------------------------------------------------

    def _committed(self, group: str, partitions: list[Any]) -> dict[Any, tuple[int, str]]:
        """What the group has committed, by partition."""
        if not partitions:
            return {}
        try:
            found = self._ask(lambda: self._clients.admin.list_group_offsets({group: partitions})[group])
        except (client.GroupIdNotFoundError, client.UnknownTopicOrPartitionError):
            return {}
        return {tp: (each.offset, each.metadata or "") for tp, each in found.items() if each.offset >= 0}

    def _alter(self, group: str, offsets: dict[Any, Any]) -> list[Any]:
        """Commit for a group of which we are no member. The kinds of the errors that it met."""

        def alter() -> list[Any]:
            answers = self._clients.admin.alter_group_offsets(group, offsets).values()
            errors = [error for error in answers if error is not client.NoError]
            for error in errors:
                if error in _COORDINATOR:
                    raise error(group)
            return errors

        return self._ask(alter)

    def _ask(self, question: Callable[[], T]) -> T:
        """Ask the server. A group's coordinator may have to be found anew, and on a new cluster takes a moment to be there."""
        until = time.monotonic() + self._clients.timeout
        while True:
            try:
                return question()
            except _NOT_YET as error:
                if time.monotonic() >= until:
                    raise
                if isinstance(error, _COORDINATOR):
                    self._clients.admin._manager.cluster._coordinators.clear()
            time.sleep(0.02)

    def _offsets(self, partitions: list[Any], which: int) -> dict[Any, int]:
        found: dict[Any, int] = self._ask(lambda: self._clients.call(self._clients.offsets, partitions, which))
        return found

    def _ledgers(self, address: Address) -> tuple[dict[Any, Ledger], dict[Any, int], str]:
        """What is known of each partition of a queue or subscription, where each ends, and the name of its retry topic."""
        prefix = self._options.prefix
        retry = names.retry(address, prefix)
        partitions = self._partitions(names.topic(address, prefix), retry)
        committed = self._committed(names.group(address, prefix), partitions)
        ends = self._offsets(partitions, LATEST)
        unread = [tp for tp in partitions if tp not in committed]
        if address.kind is Kind.SUBSCRIPTION:
            # A group that has not begun has no messages; what waits for it does not count on that.
            unread = [tp for tp in unread if tp.topic == retry]
            ends = {tp: end for tp, end in ends.items() if tp in committed or tp.topic == retry}
        found = {tp: Ledger(offset) for tp, offset in self._offsets(unread, EARLIEST).items()}
        found |= {tp: ledgers.decode(*committed[tp]) for tp in partitions if tp in committed}
        return found, ends, retry

    def depth(self, address: Address) -> Depth:
        """How many messages are ready, handed out as of the last commit, waiting for their time, and dead."""
        self.check_there(address)
        if address.kind is Kind.TOPIC:
            name = names.delayed(address, self._options.prefix)
            partitions = self._partitions(name)
            committed = self._committed(name, partitions)
            first, ends = self._offsets(partitions, EARLIEST), self._offsets(partitions, LATEST)
            known = {tp: ledgers.decode(*committed[tp]) if tp in committed else Ledger(first[tp]) for tp in partitions}
            return Depth(None, None, sum(sum(known[tp].counts(ends[tp])) for tp in partitions), None)
        ready = out = delayed = 0
        found, ends, retry = self._ledgers(address)
        for tp, end in ends.items():
            free, held = found[tp].counts(end)
            out += held
            if tp.topic == retry:
                delayed += free
            else:
                ready += free
        dead = 0
        if not address.path.endswith(_DEAD):
            letters, ends, _ = self._ledgers(address.dead)
            dead = sum(sum(letters[tp].counts(end)) for tp, end in ends.items())
        return Depth(ready, out, delayed, dead)

    def check_there(self, address: Address) -> None:
        """`NotFound` where nothing is made on the way and it is not there."""
        if self._options.declare is Declare.NEVER and not self.is_there(names.topic(address, self._options.prefix)):
            raise NotFound(
                f"there is no {address.kind.value} {address.path!r} on {self._clients.place}, and the URL says declare=never. "
                "Use a URL with declare=auto once, or correct the name",
                backend=SCHEME,
            )

    def purge(self, address: Address) -> int:
        """Drop what is not handed out, of a queue or subscription that nobody consumes. `Conflict` where somebody does."""
        self.check_there(address)
        if address.kind is Kind.TOPIC:
            name = names.delayed(address, self._options.prefix)
            group, partitions = name, self._partitions(name)
            committed = self._committed(name, partitions)
            first, ends = self._offsets(partitions, EARLIEST), self._offsets(partitions, LATEST)
            found = {tp: ledgers.decode(*committed[tp]) if tp in committed else Ledger(first[tp]) for tp in partitions}
        else:
            group = names.group(address, self._options.prefix)
            found, ends, _ = self._ledgers(address)
        dropped, offsets = 0, {}
        for tp, end in ends.items():
            known = found[tp]
            dropped += known.drop(end, {offset for offset, claim in known.claims.items() if claim.out})
            offsets[tp] = OffsetAndMetadata(known.base, ledgers.encode(known), -1)
        for error in self._alter(group, offsets) if offsets else ():
            if error in (client.UnknownMemberIdError, client.RebalanceInProgressError):
                raise Conflict(
                    f"{address.path!r} cannot be purged while other programs consume it: only they know what they hold. "
                    "Stop them, or purge where it is consumed",
                    backend=SCHEME,
                )
            raise error(group)
        return dropped

    # -- deleting -------------------------------------------------------------------------------------------------

    def delete(self, address: Address) -> bool:
        """Remove it with its messages. False when it was not there."""
        prefix = self._options.prefix
        topic = names.topic(address, prefix)
        if not self.is_there(topic):
            self.forget(topic)
            return False
        if address.kind is Kind.SUBSCRIPTION:
            return self._delete_group(address, topic)
        gone = [topic, names.delayed(address, prefix) if address.kind is Kind.TOPIC else names.retry(address, prefix)]
        groups = [names.declared(address, prefix)]
        if address.kind is Kind.TOPIC:
            head, tail = f"{topic}.", ".retry"
            for found in self._ask(self._clients.admin.list_topics):
                if found.startswith(head) and found.endswith(tail) and "." not in found[len(head) : -len(tail)]:
                    gone.append(found)
                    groups.append(found[: -len(tail)])
        else:
            groups.append(names.group(address, prefix))
        self._delete_topics(gone)
        # With the topics their offsets have gone; a group that still has members stays, empty-handed.
        self._delete_groups(groups)
        return True

    def _delete_group(self, address: Address, topic: str) -> bool:
        if self._read(address, topic) is None:
            return False
        group = names.group(address, self._options.prefix)
        met = self._delete_groups([group])
        if "NonEmptyGroupError" in met:
            raise Conflict(f"{address.path!r} cannot be deleted while it is consumed. Stop its consumers first", backend=SCHEME)
        if "GroupAuthorizationFailedError" in met:
            raise client.GroupAuthorizationFailedError(group)
        self._delete_groups([names.declared(address, self._options.prefix)])
        self._delete_topics([names.retry(address, self._options.prefix)])
        return True

    def _delete_groups(self, groups: list[str]) -> set[str]:
        """Delete them; the names of the errors that this met."""
        answers: dict[str, str] = self._ask(lambda: self._clients.admin.delete_groups(groups))
        return set(answers.values()) - {"OK"}

    def _delete_topics(self, topics: list[str]) -> None:
        there = [topic for topic in topics if self.is_there(topic)]
        self.forget(*topics)
        if not there:
            return
        try:
            self._ask(lambda: self._clients.admin.delete_topics(there))
        except client.UnknownTopicOrPartitionError:
            pass  # somebody else was faster
        until = time.monotonic() + self._clients.timeout
        while any(self.is_there(topic) for topic in there) and time.monotonic() < until:
            time.sleep(0.01)


def _is_there(described: dict[str, Any]) -> bool:
    """Whether the server has a topic, by what it says of it; raises what else it says."""
    error = client.for_code(described["error_code"])
    if error not in (client.NoError, client.UnknownTopicOrPartitionError, client.LeaderNotAvailableError):
        raise error(described["name"])
    return error is client.NoError
