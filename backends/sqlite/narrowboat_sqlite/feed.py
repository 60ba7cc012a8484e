"""One consumer's stream from one queue, subscription or inbox in a database.

A feed that found nothing looks again without a write transaction, so that idle consumers, however many, take no lock.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

from narrowboat.contract import Ack, Address, Delivery, Feed, Kind, Nack, Outcome, Properties, Received, Reject, Source
from narrowboat.errors import Closed, NarrowboatError
from narrowboat_sqlite.clocks.schedule import Moment
from narrowboat_sqlite.errors import refuse
from narrowboat_sqlite.messages import IDLE, Messages
from narrowboat_sqlite.options import SCHEME
from narrowboat_sqlite.tables import contents, message_rows, strange
from narrowboat_sqlite.tables.sources import SourceRow
from narrowboat_sqlite.tables.topology import INBOX_LEASE, Topology

#: It looks within this of the end of the shortest lease, so that what a dead consumer had comes back within `lease_lag`.
LAG = 0.4

Tag = tuple[int, int]  #: row of `delivery`, token of the claim


class _Prospect(NamedTuple):
    """What a look without a transaction of its own tells."""

    ready: bool
    change: float | None  #: when a lease or delay ends, by our clock
    foreign: bool  #: rows under other clocks, or at times that are none, whose end only a full look can tell


class SqliteFeed(Feed):
    """A feed; `tag` of its deliveries is a `Tag`. `left`: told of its end."""

    def __init__(
        self, messages: Messages, source: Source, wake: Callable[[], None], left: Callable[[SqliteFeed], None]
    ) -> None:
        self._messages = messages
        self._left = left
        self._source = source
        self._path = source.address.path
        self._wake = wake
        self._idle = _idle(source.properties)
        self._found = self._fresh = True
        #: The last claim was as large as was asked for, so there will be more. Arming first would let the watcher's thread look
        #: at every batch, and take a fifth of the throughput.
        self._plenty = False
        #: When the inbox behind this feed needs a sign of life.
        self._sign = 0.0
        #: Deliveries in flight: row to token. For `close` alone; the database decides what is still claimed.
        self._out: dict[int, int] = {}
        self._closed = False

    def receive(self, limit: int) -> Received:
        """Claim what is due, in order."""
        self._messages.check_open()
        if self._closed:
            raise Closed(f"this consumer of {self._path!r} was closed", backend=SCHEME)
        now = self._messages.schedule.now()
        armed = not self._plenty
        if armed:
            self._messages.wait(self._path, self, self._wake, now + self._idle)
        if not self._found and not self._needs_sign(now):
            prospect = self._messages.database.read(self._prospect)
            if prospect is not None and not self._promising(prospect, now):
                return Received([], self._pause(prospect, now))
        token = secrets.randbits(62)
        # No sync: a loss of power ends the consumers too, and takes back the attempt that they never handled.
        try:
            rows, prospect = self._messages.change(lambda topology: self._claim(topology, limit, token), passing=True)
            if not rows and not armed:  # the last look is made armed
                self._messages.wait(self._path, self, self._wake, now + self._idle)
                rows, prospect = self._messages.change(lambda topology: self._claim(topology, limit, token), passing=True)
            self._found, self._plenty = bool(rows), len(rows) == limit
            if rows:
                self._messages.wait_no_more(self._path, self)
                received = Received([contents.delivery(row, token) for row in rows], 0.0)
            else:
                received = Received([], self._idle if prospect is None else self._pause(prospect, now))
        except Exception:
            raise  # it was rolled back
        except BaseException:
            self._unclaim(token)
            raise
        return received  # no call between here and the caller, so no interrupt

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        """Settle each, compared by the token of its claim, all in one transaction."""
        self._messages.check_open()
        tags: list[Tag] = [delivery.tag for delivery, _ in settlements]  # type: ignore[misc]  # ours; casts would take as long
        answers = self._messages.change(lambda topology: self._settle(topology, settlements, tags))
        out = self._out
        for row, token in tags:
            if out.get(row) == token:
                del out[row]
        return answers

    def extend(self, deliveries: Sequence[Delivery], seconds: float) -> list[NarrowboatError | None]:
        """Let each lease end `seconds` from now."""
        self._messages.check_open()
        return self._messages.change(lambda topology: [self._extend(topology, delivery, seconds) for delivery in deliveries])

    def use(self, properties: Properties) -> None:
        """Claim with its lease from now on."""
        self._source = self._source._replace(properties=properties)
        self._idle = _idle(properties)

    def close(self) -> None:
        """Return deliveries in flight, counted. An inbox is deleted with its feed."""
        if self._closed:
            return
        self._closed = True
        self._messages.leave(self._path, self)
        self._left(self)
        self._messages.change(self._leave)
        self._out.clear()

    @property
    def address(self) -> Address:
        """What it reads."""
        return self._source.address

    def _needs_sign(self, now: float) -> bool:
        return self.address.kind is Kind.INBOX and now >= self._sign

    def sign(self, topology: Topology, moment: Moment) -> None:
        """Keep the inbox behind this feed, if it is time."""
        if self._needs_sign(moment.now):
            topology.keep_inbox(self.address)
            self._sign = moment.now + INBOX_LEASE / 4

    def _claim(self, topology: Topology, limit: int, token: int) -> tuple[list[tuple[Any, ...]], _Prospect | None]:
        address, properties = self._source
        moment, connection = topology.moment, topology.connection
        if address.kind is Kind.INBOX:
            source: object = topology.keep_inbox(address) if self._needs_sign(moment.now) else topology.find(address)
            self._sign = moment.now + INBOX_LEASE / 4
            source = source or topology.keep_inbox(address)
        else:
            # At each claim: the source may have been deleted. It is made again, or the consumer gets `NotFound`.
            source = topology.declare(address, properties, make=self._messages.auto_declare)
        if not isinstance(source, SourceRow):
            raise cast("NarrowboatError", source)
        topology.tick(source)
        rows = message_rows.claim(connection, source, limit, moment, properties.lease, token)
        if not rows and message_rows.unstick(connection, source, moment, keys=self._fresh):
            rows = message_rows.claim(connection, source, limit, moment, properties.lease, token)
        self._fresh = False
        # Noted before the commit: whatever interrupts us after it, `close` gives them back.
        self._out.update(dict.fromkeys([row[0] for row in rows], token))
        if rows:
            return rows, None
        prospect = self._prospect(connection)
        if prospect is not None and self._promising(prospect, moment.now):
            # This claim did all that was due. A row that still looks due is foreign, and must not keep us polling.
            prospect = _Prospect(ready=False, change=None, foreign=True)
        return rows, prospect

    def _unclaim(self, token: int) -> None:
        """Return, uncounted, the deliveries of a claim whose caller was interrupted before it got them."""
        rows = [(row, claim) for row, claim in self._out.items() if claim == token]

        def give_back(topology: Topology) -> None:
            topology.rings[self._path] += message_rows.give_back(topology.connection, rows, counted=False)

        with contextlib.suppress(NarrowboatError):  # it comes back when its lease ends
            if rows:
                self._messages.change(give_back)
        for row, _ in rows:
            del self._out[row]

    def _prospect(self, connection: sqlite3.Connection) -> _Prospect | None:
        """None when the source is not there."""
        clock = self._messages.schedule.row
        row = connection.execute(
            "SELECT EXISTS (SELECT 1 FROM delivery d WHERE d.source = s.id AND d.state = 0),"
            " (SELECT min(d.until) FROM delivery d WHERE d.source = s.id AND d.clock = ?1 AND d.until IS NOT NULL),"
            " (SELECT min(d.until) FROM delivery d WHERE d.source = s.topic AND d.clock = ?1 AND d.until IS NOT NULL),"
            " (SELECT max(d.until) FROM delivery d WHERE d.source = s.id AND d.clock = ?1 AND d.until IS NOT NULL),"
            " EXISTS (SELECT 1 FROM message_clock k JOIN delivery d ON d.clock = k.id"
            "  WHERE k.id <> ?1 AND d.source IN (s.id, s.topic) AND d.until IS NOT NULL)"
            " FROM source s WHERE s.space = ?2 AND s.path = ?3",
            (clock, self._messages.space, self._path),
        ).fetchone()
        if row is None:
            return None
        ready, own, topic, last, others = row
        times = [time for time in (own, topic) if time is not None]
        latest = self._messages.schedule.now() + message_rows.AHEAD
        odd = not all(strange.number(time, float("-inf"), latest) for time in (*times, last or 0.0))
        return _Prospect(bool(ready), None if odd else min(times, default=None), bool(others) or odd)

    def _promising(self, prospect: _Prospect, now: float) -> bool:
        return prospect.ready or prospect.foreign or (prospect.change is not None and prospect.change <= now)

    def _pause(self, prospect: _Prospect, now: float) -> float:
        """Until the next change, or the next look in any case; a message that turned up meanwhile is looked for at once."""
        if prospect.ready:
            return 0.0
        most = LAG if prospect.foreign else self._idle
        return most if prospect.change is None else min(most, max(0.0, prospect.change - now))

    def _settle(
        self, topology: Topology, settlements: Sequence[tuple[Delivery, Outcome]], tags: Sequence[Tag]
    ) -> list[NarrowboatError | None]:
        answers: list[NarrowboatError | None] = [None] * len(tags)
        once = len(dict(tags)) == len(tags)  # otherwise one is settled twice, and its first outcome stands
        acks: dict[int, dict[int, int]] = {}  # token to row to index
        for index, (row, token) in enumerate(tags):
            delivery, outcome = settlements[index]
            if once and outcome.__class__ is Ack:
                acks.setdefault(token, {})[row] = index
            else:
                answers[index] = self._settle_one(topology, row, token, delivery, outcome)
        for token, rows in acks.items():
            gone = message_rows.acknowledge(topology.connection, rows, token, topology.moment)
            if len(gone) != len(rows):
                for row in rows.keys() - gone:
                    answers[rows[row]] = self._stale(settlements[rows[row]][0])
        if self._source.properties.ordered:
            topology.rings[self._path] += len(tags)  # the next of their keys
        return answers

    def _settle_one(
        self, topology: Topology, row: int, token: int, delivery: Delivery, outcome: Outcome
    ) -> NarrowboatError | None:
        stored = message_rows.ours(topology.connection, row, token, topology.moment)
        if stored is None:
            return self._stale(delivery)
        if isinstance(outcome, Ack):
            message_rows.remove(topology.connection, [stored])
        elif isinstance(outcome, Reject):
            return topology.bury(self.address, stored, outcome.reason, outcome.attempts)
        elif isinstance(outcome, Nack):
            message_rows.nack(topology.connection, stored, topology.moment, outcome.delay)
            if outcome.delay < IDLE:
                topology.rings[self._path] += 1  # also for a delay: waiting consumers must look again when it ends
        else:
            message_rows.give_back(topology.connection, [(row, token)], counted=False)
            topology.rings[self._path] += 1
        return None

    def _extend(self, topology: Topology, delivery: Delivery, seconds: float) -> NarrowboatError | None:
        row, token = cast("Tag", delivery.tag)
        if message_rows.ours(topology.connection, row, token, topology.moment) is None:
            return self._stale(delivery)
        message_rows.extend(topology.connection, row, topology.moment, seconds)
        return None

    def _stale(self, delivery: Delivery) -> NarrowboatError:
        return refuse.stale(delivery.id, self._path, delivery.attempt)

    def _leave(self, topology: Topology) -> None:
        if self.address.kind is Kind.INBOX:
            topology.delete(self.address)
            return
        message_rows.give_back(topology.connection, self._out.items(), counted=True)
        source = topology.find(self.address)
        if isinstance(source, SourceRow):
            # Every ready message, not only ours: this feed may have taken a wake that another one needs.
            topology.rings[self._path] += message_rows.ready(topology.connection, source.id, most=100)


def _idle(properties: Properties) -> float:
    return min(IDLE, properties.lease + LAG)
