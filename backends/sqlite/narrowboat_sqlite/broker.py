"""Messages in a SQLite database: durable queues and topics between the processes of one machine, without a server.

Everything is a row (`messages.sql`) and every call one transaction, so a process may be killed at any point. With
`durability=full` a publish that returned survives a loss of power, with `normal` a crash of any process. Time is the boot
clock (`clocks/schedule.py`): setting the wall clock does nothing.

Consumers in this process are woken by what was committed here, those in other processes by the watcher. Files on network
file systems will not do.
"""

from __future__ import annotations

import contextlib
import sqlite3
import weakref
from collections.abc import Callable, Sequence
from typing import TypeVar

from narrowboat.capabilities import BrokerCapabilities, Scope, Support, Survives
from narrowboat.contract import Address, Broker, BrokerBackend, Context, Depth, Feed, Kind, Outgoing, Receipt, Source
from narrowboat.driver.claims import keeper
from narrowboat.driver.sources import Declare, has_dead_letters
from narrowboat.driver.waking import Bell
from narrowboat.dsn import Url
from narrowboat.errors import Closed, NarrowboatError
from narrowboat_sqlite.clocks.schedule import Schedule
from narrowboat_sqlite.connection.database import Database, path_of, prepare
from narrowboat_sqlite.connection.shared import Shared
from narrowboat_sqlite.errors import not_sent, refuse
from narrowboat_sqlite.feed import IDLE, SqliteFeed
from narrowboat_sqlite.options import SCHEME, Durability, MessageOptions
from narrowboat_sqlite.tables import message_rows, schema
from narrowboat_sqlite.tables.message_rows import Observed
from narrowboat_sqlite.tables.sources import SourceRow
from narrowboat_sqlite.tables.topology import Topology
from narrowboat_sqlite.waking.watcher import watch

T = TypeVar("T")

#: Seconds between two sweeps of what has expired everywhere, while there are calls. Larger keeps dead rows longer.
_SWEEP = 1.0
#: Messages up to which waiting feeds are counted out by the watcher: a bound on what one look costs.
_MOST = 100

#: The waiting feeds of this process, for each database and namespace: brokers in one process wake each other directly.
_bells: Shared[tuple[tuple[int, int], str], Bell[str]] = Shared(weakref.WeakValueDictionary)


def capabilities(url: Url, options: MessageOptions) -> BrokerCapabilities:
    """What `sqlite:///` claims. Replay only where the URL says for how long topics keep messages."""
    survives = Survives.POWER if options.durability is Durability.FULL else Survives.CRASH
    return keeper(Scope.HOST, survives, work=Support.NATIVE, dedup=options.dedup, retention=options.retention)


class SqliteBroker(Broker):
    """One user of one namespace of messages in one file."""

    def __init__(self, url: Url, options: MessageOptions, context: Context) -> None:
        self.capabilities = capabilities(url, options)
        self.space = options.prefix
        #: Whether queues and topics are made on the way.
        self.auto_declare = options.declare is Declare.AUTO
        self._options = options
        self._schedule = Schedule(context.clock)
        self._observed: Observed = {}
        self._feeds: set[SqliteFeed] = set()
        self._swept = 0.0
        self._closed = False
        self._database = Database(
            path_of(url),
            durability=options.durability,
            timeout=context.timeout,
            mode=options.permissions,
            schema=schema("messages"),
        )
        try:
            self._database.write(self._schedule.register)
        except BaseException:
            self._database.close()
            raise
        self._watcher = watch(self._database)
        with _bells.mutex:
            self._bell = _bells.found.setdefault((self._database.key, self.space), Bell())
        context.watch(self._clock_moved)

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        """Store all in one transaction; they are committed when this returns."""
        self.check_open()

        def store(topology: Topology) -> list[Receipt | NarrowboatError]:
            for feed in self._asking(messages):
                feed.sign(topology, topology.moment)
            return topology.send(
                messages, make=self.auto_declare, window=self._options.dedup, retention=self._options.retention
            )

        try:
            return self.change(store)
        except NarrowboatError as error:
            if not not_sent(error):
                raise
            return [
                refuse.refused(message.id, message.to.path, error, retryable=error.retryable, cause=error)
                for message in messages
            ]

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        """A feed from `source`, which exists from now on."""
        self.declare(source, earliest=earliest)
        return self._feed(source, wake)

    def inbox(self, wake: Callable[[], None]) -> tuple[Address, Feed]:
        """A private address; it goes with the feed, and a minute after its process at the latest."""
        self.check_open()
        inbox = self.change(lambda topology: topology.inbox())
        return inbox.address, self._feed(Source(inbox.address, inbox.properties), wake)

    def declare(self, source: Source, *, earliest: bool) -> None:
        """Make it if it is not there; refuse it when it differs."""
        self.check_open()
        address, properties = source
        self.change(lambda topology: _raise(topology.declare(address, properties, make=self.auto_declare, earliest=earliest)))

    def delete(self, address: Address) -> bool:
        """Delete a source with all its messages. Deliveries in flight become stale."""
        self.check_open()
        return self.change(lambda topology: _raise(topology.delete(address)))

    def purge(self, address: Address) -> int:
        """Delete ready and delayed messages; of a topic, those that are not due yet."""
        self.check_open()
        return self.change(lambda topology: self._purge(topology, address))

    def depth(self, address: Address) -> Depth:
        """How many messages are ready, in flight, delayed, dead; of a topic, how many are not due yet."""
        self.check_open()
        return self.change(lambda topology: self._depth(topology, address))

    def ping(self) -> None:
        """An empty write transaction: it fails where any call would."""
        self.check_open()
        self.change(lambda topology: None, passing=True)

    def close(self) -> None:
        """Close every feed, the watcher's thread (with the last broker in this process) and the file."""
        if self._closed:
            return
        try:
            for feed in list(self._feeds):
                # What cannot be given back now comes back when its lease ends.
                with contextlib.suppress(NarrowboatError):
                    feed.close()
        finally:
            self._closed = True
            self._watcher.unsubscribe(self._look)
            self._watcher.release()
            self._database.close()

    def check_open(self) -> None:
        """Raise `Closed` after `close`."""
        if self._closed:
            raise Closed(f"this broker on {self._database.path} was closed; open it again", backend=SCHEME)

    def now(self) -> float:
        """Our clock's reading."""
        return self._schedule.now()

    @property
    def clock_row(self) -> int:
        """Our clock's row."""
        return self._schedule.row

    def change(self, work: Callable[[Topology], T], *, passing: bool = False) -> T:
        """Run `work` in one transaction, then wake whom it concerns. `passing`: a loss of power may take it back."""

        def run(connection: sqlite3.Connection) -> tuple[T, Topology]:
            # The time is read inside, after any wait for the database: places in the order follow the commits.
            moment = self._schedule.moment()
            topology = Topology(connection, self.space, moment, self._observed)
            if moment.now >= self._swept + _SWEEP:
                topology.sweep()
                if self._schedule.note_due(moment):
                    self._schedule.note(connection, moment)
                self._swept = moment.now
            return work(topology), topology

        result, topology = self._database.write(run, passing=passing)
        for path, count in topology.rings.items():
            self._bell.ring(path, count, topology.moment.now)
        return result

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work`, which only reads."""
        return self._database.read(work)

    def wait(self, path: str, feed: SqliteFeed, wake: Callable[[], None], until: float) -> None:
        """`feed` is about to look for the last time before it waits."""
        self._bell.arm(path, feed, wake, until)
        self._watcher.subscribe(self._look, self._options.poll)

    def wait_no_more(self, path: str, feed: SqliteFeed) -> None:
        """`feed` found something, or ends."""
        self._bell.disarm(path, feed)

    def forget(self, feed: SqliteFeed) -> None:
        """That feed was closed."""
        self._feeds.discard(feed)
        if not self._bell.waiting():
            self._watcher.unsubscribe(self._look)

    def _feed(self, source: Source, wake: Callable[[], None]) -> Feed:
        feed = SqliteFeed(self, source, wake)
        self._feeds.add(feed)
        return feed

    def _asking(self, messages: Sequence[Outgoing]) -> list[SqliteFeed]:
        """The inboxes of ours to which these messages want their replies."""
        asked = {message.reply_to for message in messages if message.reply_to is not None}
        return [feed for feed in list(self._feeds) if feed.address in asked] if asked else []

    def _look(self, connection: sqlite3.Connection) -> None:
        """Called by the watcher after a commit: wake feeds for what is ready, or will be before they look again."""
        moment = self._schedule.moment()
        waiting = self._bell.waiting()
        if not waiting:
            self._watcher.unsubscribe(self._look)
        for path in waiting:
            row = connection.execute("SELECT id, topic FROM source WHERE space = ? AND path = ?", (self.space, path)).fetchone()
            if row is None:
                continue
            count = message_rows.ready(connection, row[0], most=_MOST)
            soon = connection.execute(
                "SELECT EXISTS (SELECT 1 FROM delivery WHERE source IN (?, ?) AND clock = ? AND until <= ?)",
                (*row, moment.clock, moment.now + IDLE),
            ).fetchone()[0]
            if count or soon:
                self._bell.ring(path, max(count, soon), moment.now)

    def _clock_moved(self) -> None:
        self._bell.ring_all()

    def _purge(self, topology: Topology, address: Address) -> int:
        found = self._find(topology, address)
        return 0 if found is None else message_rows.purge(topology.connection, found.id)

    def _depth(self, topology: Topology, address: Address) -> Depth:
        found = self._find(topology, address)
        dead = topology.find(address.dead) if has_dead_letters(address) and address.kind is not Kind.TOPIC else None
        return Depth(
            *(message_rows.counts(topology.connection, found.id) if found is not None else (0, 0, 0)),
            sum(message_rows.counts(topology.connection, dead.id)) if isinstance(dead, SourceRow) else 0,
        )

    def _find(self, topology: Topology, address: Address) -> SourceRow | None:
        found = _raise(topology.find(address))
        if found is not None:
            topology.tick(found)
        elif not self.auto_declare and address.kind is not Kind.INBOX:
            raise refuse.missing(address.path, address.kind.value)
        return found


def _raise(answer: T | NarrowboatError) -> T:
    if isinstance(answer, NarrowboatError):
        raise answer
    return answer


broker = BrokerBackend(
    scheme=SCHEME,
    summary="messages in one file, between the processes of one machine",
    options=MessageOptions,
    capabilities=capabilities,
    open=SqliteBroker,
    prepare=prepare,
    example="sqlite:///shop.db",
)
