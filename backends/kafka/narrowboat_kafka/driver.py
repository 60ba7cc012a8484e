"""Messages on Apache Kafka: queues and topics with acknowledgement of single messages, retries and dead letters.

What is settled out of order and how often a message was handed out travels in the metadata of commits (`format/ledger.py`),
so a queue needs no other store. Publishing is one idempotent producer, reading one member for each source (`member/`).
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from narrowboat.capabilities import BrokerCapabilities
from narrowboat.contract import Address, Broker, Context, Depth, Feed, Kind, Outgoing, Properties, Receipt, Source
from narrowboat.dsn import Url
from narrowboat.errors import Conflict, NarrowboatError, Unsupported
from narrowboat_kafka.client import SOON
from narrowboat_kafka.connections import Connections
from narrowboat_kafka.errors import REFUSALS, translate, unpublished, unsent
from narrowboat_kafka.feed import KafkaFeed, Shared
from narrowboat_kafka.format import levels, records
from narrowboat_kafka.format.records import Record
from narrowboat_kafka.member.member import Member
from narrowboat_kafka.member.watch import TopicWatch
from narrowboat_kafka.options import SCHEME, Groups, Options
from narrowboat_kafka.publishing.mover import Mover
from narrowboat_kafka.publishing.publisher import Publisher
from narrowboat_kafka.share.feed import ShareFeed
from narrowboat_kafka.share.queues import Queues
from narrowboat_kafka.topology import names
from narrowboat_kafka.topology.contents import Contents
from narrowboat_kafka.topology.offsets import Offsets
from narrowboat_kafka.topology.sources import Sources
from narrowboat_kafka.topology.topics import Topics


class KafkaBroker(Broker):
    """One user of one namespace on one cluster."""

    def __init__(self, url: Url, options: Options, capabilities: BrokerCapabilities, context: Context) -> None:
        self.capabilities = capabilities
        self._levels = levels.count(options.delay_max)
        self._prefix = options.prefix
        self._members: dict[str, Member] = {}
        self._moving: set[str] = set()  #: groups that move what was published to a topic with a delay, once there is any
        self._movers: dict[str, Member] = {}  #: those that have joined
        self._turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)  #: opening and closing, by group
        self._feeds: set[KafkaFeed | ShareFeed] = set()
        self._closed = False
        self._until = math.inf  #: when closing is over
        self._connections = Connections(url, options, context)
        self._publisher = Publisher(self._connections)
        self._watch = TopicWatch(self._connections)
        offsets = Offsets(self._connections)
        self._topics = Topics(self._connections, options)
        self._sources = Sources(self._connections, self._topics, offsets, options, heard=self._watch.look)
        self._contents = Contents(self._topics, offsets, options.prefix)
        self._mover = Mover(self._connections.loop, self._publisher, self._levels)
        self._shared = Shared(self._connections, self._publisher, self._sources, self._levels, context.tell)
        self._queues = Queues(self._shared, options) if options.groups is Groups.SHARE else None

    # -- publishing -----------------------------------------------------------------------------------------------

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        """Store each message; one answer for each, once all replicas in step have it."""
        self._connections.check_open()
        refused: dict[int, NarrowboatError] = {}  #: by where in `messages` they stand
        found = self._records(messages, refused)
        try:
            stored = self._publisher.publish(found)
        except Exception as error:
            raise translate(error, "publishing") from error
        if not refused and not any(stored):
            return [Receipt(message.id) for message in messages]
        outcomes = zip(found, stored, strict=True)
        answers: list[Receipt | NarrowboatError] = []
        for index, message in enumerate(messages):
            if index in refused:
                answers.append(refused[index])
                continue
            record, failed = next(outcomes)
            if failed is None:
                answers.append(Receipt(message.id))
            else:
                self._sources.forget(record.topic)  # it may have been deleted: look again the next time
                answers.append(unpublished(failed.error, message.id, message.to.path, left=failed.left))
        return answers

    def _records(self, messages: Sequence[Outgoing], refused: dict[int, NarrowboatError]) -> list[Record]:
        """What is to be stored of `messages`, without those that are `refused`."""
        now, outgoing = time.time(), records.outgoing
        targets: dict[tuple[int, bool], str | NarrowboatError] = {}  #: by which object an address is: hashing it costs more
        found: list[Record] = []
        to: Address | None = None
        topic: str | NarrowboatError = ""
        later = waits = False
        for index, message in enumerate(messages):
            if message.to is not to or (message.delay > 0) is not later:
                to, later = message.to, message.delay > 0
                topic = targets.get((id(to), later)) or self._target(to, later)
                targets[id(to), later] = topic
                waits = later or to.kind is Kind.SUBSCRIPTION
            if isinstance(topic, NarrowboatError):
                refused[index] = unsent(topic, message.id, message.to.path)
            elif message.headers and any("\0" in name for name in message.headers):
                refused[index] = REFUSALS.refused(message.id, to.path, records.NO_NUL)
            elif waits:
                level = levels.level(message.delay, self._levels)
                found.append(outgoing(message, topic, level, now, stay=levels.stay(level)))
            else:
                found.append(outgoing(message, topic, None, now))
        return found

    def _target(self, to: Address, later: bool) -> str | NarrowboatError:
        """The topic that takes a message, or why there is none."""
        try:
            if to.kind is Kind.INBOX:
                raise Unsupported("replies are not offered on Kafka", backend=SCHEME)
            topic = self._sources.topic(to)
            if to.kind is Kind.SUBSCRIPTION or (later and to.kind is Kind.QUEUE):
                return self._sources.retry(to)
            if later:
                return self._sources.delayed(to)
            return topic
        except Exception as error:
            return translate(error, f"publishing to {to.path!r}")  # nothing was sent

    # -- consuming ------------------------------------------------------------------------------------------------

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        """A consumer that has joined its group, or soon will have."""
        self._connections.check_open()
        address = source.address
        try:
            new = self._sources.declare(source, earliest=earliest)
            if self._queues is not None:
                return self._open_shared(self._queues, source, wake, new=new)
            group = names.group(address, self._prefix)
            with self._turns[group]:
                self._connections.check_open()
                if address.kind is Kind.SUBSCRIPTION:
                    self._move_delayed(address)
                member = self._members.get(group)
                if member is None:
                    member = self._join(address, group)
                feed = KafkaFeed(self._shared, address, member, wake, self._leave)
                self._feeds.add(feed)
        except Exception as error:
            raise translate(error, f"opening a consumer of {address.path!r}") from error
        return feed

    def _open_shared(self, queues: Queues, source: Source, wake: Callable[[], None], *, new: bool) -> ShareFeed:
        feed = queues.open(source, wake, self._leave_shared, new=new)
        with self._turns[names.group(source.address, self._prefix)]:
            self._feeds.add(feed)
            self._move_delayed(source.address)
        return feed

    def _leave_shared(self, feed: ShareFeed) -> None:
        """A consumer closes: what it had goes back, and its members leave the group."""
        until = min(self._until, time.monotonic() + self._connections.timeout)
        feed.readers.end(max(SOON, until - time.monotonic()))
        with self._turns[names.group(feed.address, self._prefix)]:
            self._feeds.discard(feed)
            self._stop_moving(feed.address, until)

    def _join(self, address: Address, group: str) -> Member:
        retry = names.retry(address, self._prefix)
        topics = [names.topic(address, self._prefix)]
        if self._topics.is_there(retry):
            topics.append(retry)

        forward = self._mover.to_retry(lambda: member, lambda: self._sources.retry(address))
        member = self._members[group] = Member(self._connections, self._watch, group, topics, retry, forward)
        until = time.monotonic() + self._connections.timeout
        try:
            # A group whose members are away takes a session to notice; then this one gets its share later.
            while not member.joined.wait(0.05) and time.monotonic() < until:
                if member.failure is not None and not getattr(member.failure, "retriable", True):
                    raise member.failure
        except BaseException:  # an interrupt included: a member that nobody waits for would own its partitions for ever
            del self._members[group]
            member.close(time.monotonic() + self._connections.timeout)
            raise
        return member

    def _move_delayed(self, address: Address) -> None:
        """Move delayed messages as well, from the first one on: a process that consumes the topic or shared queue does so."""
        group = names.moving(address, self._prefix)
        if group not in self._moving:
            self._moving.add(group)
            topic = names.topic(address, self._prefix)
            self._watch.want(group, self, lambda: self._mover.do(lambda: self._join_moving(group, topic)))

    def _join_moving(self, group: str, topic: str) -> None:
        """On the mover's thread."""
        with self._turns[group]:
            if group in self._moving and not self._closed:
                forward = self._mover.to_topic(lambda: self._movers[group], topic)
                self._movers[group] = Member(self._connections, self._watch, group, [group], group, forward, deliver=False)

    def _leave(self, feed: KafkaFeed) -> None:
        """A consumer closes: what it had goes back, and the last one of a source leaves the group."""
        member = feed.member
        with self._turns[member.group]:
            # What the server does not answer to goes on by itself, and ends with its session: nobody waits for it any longer.
            until = min(self._until, time.monotonic() + self._connections.timeout)
            self._feeds.discard(feed)
            with contextlib.suppress(Exception):  # what cannot be given back now comes back when the session ends
                self._connections.loop.call_until(until if member.answered else 0.0, member.deliveries.leave, feed)
            if not member.deliveries.feeds and self._members.get(member.group) is member:
                del self._members[member.group]
                with contextlib.suppress(Exception):
                    member.close(until)
                self._stop_moving(feed.address, until)

    def _stop_moving(self, address: Address, until: float) -> None:
        group = names.moving(address, self._prefix)
        if any(names.moving(each.address, self._prefix) == group for each in self._feeds):
            return
        with self._turns[group]:
            self._moving.discard(group)
            mover = self._movers.pop(group, None)
        if mover is not None:
            with contextlib.suppress(Exception):
                mover.close(until)

    def inbox(self, wake: Callable[[], None]) -> tuple[Address, Feed]:
        """Not to be had: nothing on a server of Kafka goes away with its user."""
        raise Unsupported("request() is not offered on Kafka: a topic for replies would stay behind", backend=SCHEME)

    # -- administration -------------------------------------------------------------------------------------------

    def declare(self, source: Source, *, earliest: bool) -> None:
        """Make it if it is not there; refuse it where it differs."""
        with self._translated(f"declaring {source.address.path!r}"):
            self._sources.declare(source, earliest=earliest)

    def stored(self, address: Address) -> Properties | None:
        """What a consumer declared, or somebody altered since."""
        with self._translated(f"looking up {address.path!r}"):
            return self._sources.stored(address)

    def alter(self, address: Address, *, lease: float | None, max_deliveries: int | None) -> Properties:
        """Store another lease or limit."""
        with self._translated(f"altering {address.path!r}"):
            return self._sources.alter(address, lease, max_deliveries)

    def delete(self, address: Address) -> bool:
        """Remove it with its messages."""
        with self._translated(f"deleting {address.path!r}"):
            return self._sources.delete(address)

    def purge(self, address: Address) -> int:
        """Drop what is ready or delayed."""
        with self._translated(f"purging {address.path!r}"):
            if self._queues is not None:
                return self._purge_shared(self._queues, address)
            member = self._members.get(names.group(address, self._prefix)) if address.kind is not Kind.TOPIC else None
            dropped: int | None = None if member is None else self._connections.call(member.purge)
            if dropped is None:
                self._sources.check_there(address)
                dropped = self._contents.purge(address)
            return dropped

    def _purge_shared(self, queues: Queues, address: Address) -> int:
        self._sources.check_there(address)
        self._sources.topic(address)
        return self._purge_waiting(address) + queues.purge(address)

    def _purge_waiting(self, address: Address) -> int:
        """Drop what waits for its time. We may be about to join the group that moves it on: then we wait for that."""
        waiting, until = names.moving(address, self._prefix), time.monotonic() + self._connections.timeout
        while True:
            mover = self._movers.get(waiting)
            try:
                dropped: int | None = self._connections.call(mover.purge) if mover is not None and mover.parts else None
                return self._contents.purge_waiting(address.path, waiting) if dropped is None else dropped
            except Conflict:
                if waiting not in self._moving or time.monotonic() >= until:
                    raise
            time.sleep(0.05)

    def depth(self, address: Address) -> Depth:
        """How many messages there are, as of the last commits."""
        with self._translated(f"counting {address.path!r}"):
            self._sources.check_there(address)
            return self._contents.depth(address)

    def ping(self) -> None:
        """Ask the server who it is."""
        with self._translated(f"asking {self._connections.place}"):
            self._connections.admin.ping()

    @contextlib.contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        self._connections.check_open()
        try:
            yield
        except Exception as error:
            raise translate(error, doing) from error

    def close(self) -> None:
        """Leave all groups, then close connections and threads. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._until = time.monotonic() + self._connections.timeout  # for all of it together
        try:
            for feed in list(self._feeds):
                feed.close()
            for mover in list(self._movers.values()):
                with contextlib.suppress(Exception):
                    mover.close(self._until)
            self._mover.close(self._until)
        finally:
            self._connections.shut()
            try:
                self._publisher.close(self._until)
            finally:
                self._connections.close(max(0.0, self._until - time.monotonic()))
