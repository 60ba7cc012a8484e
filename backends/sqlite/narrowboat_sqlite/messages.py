"""The messages of one namespace in one file, as one broker sees them: its connection, its clock, and the feeds that wait.

Each change is one transaction, after which the feeds of this process that it concerns are woken; those of other processes
notice the commit by their watcher. Broker and feeds stand on it. What a change does is theirs to know.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Callable
from typing import TypeVar

from narrowboat.contract import Context
from narrowboat.driver.sources import Declare
from narrowboat.driver.waking import Bell
from narrowboat.dsn import Url
from narrowboat.errors import Closed
from narrowboat_sqlite.clocks.schedule import Moment, Schedule
from narrowboat_sqlite.connection.database import Database, path_of
from narrowboat_sqlite.connection.shared import Shared
from narrowboat_sqlite.options import SCHEME, MessageOptions
from narrowboat_sqlite.tables import message_rows, schema
from narrowboat_sqlite.tables.message_rows import Observed
from narrowboat_sqlite.tables.topology import Topology
from narrowboat_sqlite.waking.watcher import watch

T = TypeVar("T")

#: Seconds until an idle feed looks again without a wake. Smaller costs CPU in every idle consumer. Larger delays a message
#: whose wake went to an abandoned feed.
IDLE = 0.5
#: Seconds between two sweeps of what has expired everywhere, while there are calls. Larger keeps dead rows longer.
_SWEEP = 1.0
#: Messages up to which waiting feeds are counted out by the watcher: a bound on what one look costs.
_MOST = 100

#: The waiting feeds of this process, for each database and namespace: brokers in one process wake each other directly.
_bells: Shared[tuple[tuple[int, int], str], Bell[str]] = Shared(weakref.WeakValueDictionary)


class Messages:
    """See the module's text. From any thread."""

    def __init__(self, url: Url, options: MessageOptions, context: Context) -> None:
        self.space = options.prefix
        #: Whether queues and topics are made on the way.
        self.auto_declare = options.declare is Declare.AUTO
        self.closed = False
        self.schedule = Schedule(context.clock)
        self._poll = options.poll
        self._observed: Observed = {}
        self._swept = 0.0
        self.database = Database(
            path_of(url),
            durability=options.durability,
            timeout=context.timeout,
            mode=options.permissions,
            schema=schema("messages"),
        )
        try:
            self.database.write(self.schedule.register)
        except BaseException:
            self.database.close()
            raise
        self._watcher = watch(self.database)
        with _bells.mutex:
            self._bell = _bells.found.setdefault((self.database.key, self.space), Bell())
        context.watch(self._clock_moved)

    def check_open(self) -> None:
        """Raise `Closed` after `close`."""
        if self.closed:
            raise Closed(f"this broker on {self.database.path} was closed; open it again", backend=SCHEME)

    def close(self) -> None:
        """End the watcher's thread (with the last broker in this process) and the connection."""
        self.closed = True
        self._watcher.unsubscribe(self._look)
        self._watcher.release()
        self.database.close()

    def change(self, work: Callable[[Topology], T], *, passing: bool = False) -> T:
        """Run `work` in one transaction, then wake whom it concerns. `passing`: a loss of power may take it back."""

        def run(connection: sqlite3.Connection) -> tuple[T, Topology]:
            # The time is read inside, after any wait for the database: places in the order follow the commits.
            moment = self.schedule.moment()
            topology = self._topology(connection, moment)
            if moment.now >= self._swept + _SWEEP:
                topology.sweep()
                if self.schedule.note_due(moment):
                    self.schedule.note(connection, moment)
                self._swept = moment.now
            return work(topology), topology

        result, topology = self.database.write(run, passing=passing)
        for path, count in topology.rings.items():
            self._bell.ring(path, count, topology.moment.now)
        return result

    def look(self, work: Callable[[Topology], T]) -> T:
        """Run `work`, which only reads, on one snapshot."""
        return self.database.read(lambda connection: work(self._topology(connection, self.schedule.moment())))

    def _topology(self, connection: sqlite3.Connection, moment: Moment) -> Topology:
        return Topology(connection, self.space, moment, self._observed)

    def wait(self, path: str, feed: object, wake: Callable[[], None], until: float) -> None:
        """`feed` is about to look for the last time before it waits."""
        self._bell.arm(path, feed, wake, until)
        self._watcher.subscribe(self._look, self._poll)

    def wait_no_more(self, path: str, feed: object) -> None:
        """`feed` found something."""
        self._bell.disarm(path, feed)

    def leave(self, path: str, feed: object) -> None:
        """`feed` ends."""
        self.wait_no_more(path, feed)
        if not self._bell.waiting():
            self._watch_no_more()

    def _watch_no_more(self) -> None:
        self._watcher.unsubscribe(self._look)
        if self._bell.waiting():  # a feed was armed since the last look at the list, and found itself subscribed
            self._watcher.subscribe(self._look, self._poll)

    def _look(self, connection: sqlite3.Connection) -> None:
        """Called by the watcher after a commit: wake feeds for what is ready, or will be before they look again."""
        moment = self.schedule.moment()
        waiting = self._bell.waiting()
        if not waiting:
            self._watch_no_more()
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
