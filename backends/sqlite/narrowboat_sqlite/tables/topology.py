"""The queues, topics, subscriptions and inboxes of one namespace, and the routing of published messages into them.

A `Topology` lives for one transaction. It counts in `rings`, by path, the messages for which the caller wakes consumers after
the commit.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import Any

from narrowboat.contract import Address, Kind, Outgoing, Properties, Receipt
from narrowboat.driver.sources import dead_headers, first_properties, has_dead_letters, rank
from narrowboat.errors import Conflict, NarrowboatError, NotFound
from narrowboat_sqlite.clocks.schedule import Moment, readings
from narrowboat_sqlite.errors import refuse
from narrowboat_sqlite.tables import contents, message_rows, strange
from narrowboat_sqlite.tables.batch import Batch, plain_until
from narrowboat_sqlite.tables.message_rows import Observed, Stored
from narrowboat_sqlite.tables.sources import COLUMNS, SourceRow, source_of, strange_source

#: Seconds for which an inbox stays without a sign of life from its process. Smaller loses replies of a process that was
#: stopped for that long; larger keeps the inboxes of dead processes longer.
INBOX_LEASE = 60.0


class Topology:
    """Every address of one namespace, within one transaction."""

    def __init__(self, connection: sqlite3.Connection, space: str, moment: Moment, observed: Observed) -> None:
        self.connection = connection
        self.space = space
        self.moment = moment
        self._observed = observed
        self._forgot = False
        self.rings: Counter[str] = Counter()

    def find(self, address: Address) -> SourceRow | Conflict | None:
        """What `address` names; None when it is not there, `Conflict` when it is something else, or strange."""
        found = self._row(address.path)
        if isinstance(found, Conflict):
            return found
        if found is not None and found.address.kind is not address.kind:
            return refuse.taken(address.path, found.address.kind.value, address.kind.value)
        if found is None and address.kind is Kind.SUBSCRIPTION:
            topic = self._row(address.name)
            if isinstance(topic, Conflict):
                return topic
            if topic is not None and topic.address.kind is not Kind.TOPIC:
                return refuse.taken(address.name, topic.address.kind.value, Kind.TOPIC.value)
        return found

    def declare(
        self, address: Address, properties: Properties, *, make: bool, earliest: bool = False
    ) -> SourceRow | Conflict | NotFound:
        """Find or make what a consumer declares. `make`: whether it may be made."""
        found = self.find(address)
        if isinstance(found, Conflict):
            return found
        if found is None:
            if not make:
                return refuse.missing(address.path, address.kind.value)
            return self._make(address, properties, declared=True, earliest=earliest)
        if address.kind is Kind.TOPIC:
            return found
        if found.declared:
            return refuse.differs(address.path, found.properties._asdict(), properties) or found
        # It was made by a publish: a producer that starts first must not fix the consumers' properties.
        return self._adopt(found, properties)

    def inbox(self) -> SourceRow:
        """Make a private source. It has no `max_deliveries`: its dead letters would never be read."""
        address = Address(Kind.INBOX, f"inbox-{uuid.uuid4().hex}")
        return self._make(address, Properties(max_deliveries=0), declared=True, earliest=False)

    def keep_inbox(self, address: Address) -> SourceRow:
        """A sign of life; an inbox that was given up because there was none for too long is there again."""
        found = self._row(address.path)
        if isinstance(found, Conflict):
            raise found
        if found is None:
            return self._make(address, Properties(max_deliveries=0), declared=True, earliest=False)
        self.connection.execute(
            "UPDATE source SET seen = ?, clock = ? WHERE id = ?", (self.moment.now, self.moment.clock, found.id)
        )
        return found

    def send(
        self, messages: Sequence[Outgoing], *, make: bool, window: float, retention: float
    ) -> list[Receipt | NarrowboatError]:
        """Store each message wherever it belongs; one answer for each."""
        batch = Batch(self.connection, self.moment)
        targets: dict[Address, SourceRow | NarrowboatError | None] = {}
        groups: dict[int, list[SourceRow]] = {}
        answers: list[Receipt | NarrowboatError] = []
        index = 0
        while index < len(messages):
            to = messages[index].to
            if to not in targets:
                found = self._target(to, make=make, groups=groups)
                if to.kind is Kind.SUBSCRIPTION:
                    targets.clear()  # a topic may have one group more from here on
                targets[to] = found
            target = targets[to]
            end = index
            if isinstance(target, SourceRow) and target.address.kind is not Kind.TOPIC and not target.properties.ordered:
                end = plain_until(messages, index)
            if isinstance(target, SourceRow) and end > index:
                run = messages[index:end]
                batch.plain(target, run)
                self.rings[target.path] += len(run)
                answers += [Receipt(message.id) for message in run]
                index = end
                continue
            message = messages[index]
            index += 1
            if isinstance(target, NarrowboatError):
                answers.append(target)
            elif target is None:
                answers.append(Receipt(message.id))  # the requester is gone
            elif message.dedup and window > 0 and not self._first(target, message, window):
                answers.append(Receipt(message.id, duplicate=True))
            else:
                self._add(batch, target, groups, message, retention)
                answers.append(Receipt(message.id))
        batch.store()
        return answers

    def tick(self, source: SourceRow) -> None:
        """Do what is due in the source's topic, then in the source."""
        if source.address.kind is Kind.TOPIC:
            self._tick_topic(source.id)
            return
        if source.topic is not None:
            self._tick_topic(source.topic)
        message_rows.tick(self.connection, source, self.moment, self._observed)

    def bury(self, source: Address, stored: Stored, reason: str, attempts: int) -> Conflict | None:
        """Move a message to the dead letters of its source, if it has any."""
        if has_dead_letters(source):
            address = source.dead
            # Made whatever the URL says about declaring: it is a part of its source, and the message must go somewhere.
            dead = self.find(address) or self._make(address, first_properties(address.path), declared=False, earliest=False)
            if isinstance(dead, Conflict):
                return dead
            row = self.connection.execute(
                "SELECT headers, key, priority FROM message WHERE id = ?", (stored.message,)
            ).fetchone()
            if row is None:  # another program has deleted it: there is no body to keep
                message_rows.remove(self.connection, [stored])
                return None
            headers, key, priority = row
            headers = dead_headers(contents.headers_of(headers) or {}, reason=reason, attempts=attempts, origin=source.path)
            number = self.connection.execute(
                "INSERT INTO message (name, body, headers, key, published, priority, details, copies)"
                " SELECT name, body, ?, key, published, priority, details, 1 FROM message WHERE id = ? RETURNING id",
                (json.dumps(headers), stored.message),
            ).fetchone()[0]
            if dead.properties.ordered:
                self.tick(dead)
            message_rows.arrive(self.connection, dead, (number, key, priority), self.moment.place, (None, None))
            self.rings[dead.path] += 1
        message_rows.remove(self.connection, [stored])
        return None

    def delete(self, address: Address) -> bool | Conflict:
        """Delete a source with its messages. Deliveries in flight become stale."""
        found = self.find(address)
        if isinstance(found, Conflict) and (odd := self._number(address.path)) is not None:
            self._drop(odd)
            return True
        if found is None or isinstance(found, Conflict):
            return found or False
        if address.kind is Kind.TOPIC:
            for group in self._groups(found.id):
                self._drop(group.id)
            kept = self.connection.execute("DELETE FROM kept WHERE topic = ? RETURNING message", (found.id,)).fetchall()
            message_rows.release(self.connection, [row[0] for row in kept])
        self._drop(found.id)
        return True

    def sweep(self) -> None:
        """Drop what has expired, what was kept for long enough, and the inboxes of dead processes."""
        clocks = readings(self.connection, self.moment)
        message_rows.expire(self.connection, clocks)
        for clock, now in clocks:
            kept = self.connection.execute(
                "DELETE FROM kept WHERE clock = ? AND until <= ? RETURNING message", (clock, now)
            ).fetchall()
            message_rows.release(self.connection, [row[0] for row in kept])
            inboxes = self.connection.execute(
                "SELECT id FROM source WHERE seen IS NOT NULL AND clock = ? AND seen <= ?", (clock, now - INBOX_LEASE)
            ).fetchall()
            for (inbox,) in inboxes:
                self._drop(inbox)
        self.forget()

    def forget(self) -> None:
        """Forget the ids whose window has passed."""
        for clock, now in readings(self.connection, self.moment):
            self.connection.execute("DELETE FROM known_id WHERE clock = ? AND until <= ?", (clock, now))

    def _add(
        self, batch: Batch, target: SourceRow, groups: dict[int, list[SourceRow]], message: Outgoing, retention: float
    ) -> None:
        expires = None if message.ttl is None else self.moment.now + message.ttl
        if target.address.kind is not Kind.TOPIC:
            batch.delivery(target, batch.message(message, 1), message, message.delay, expires)
            self.rings[target.path] += 1
            return
        members = groups[target.id]
        if message.delay > 0:
            batch.pending(target, batch.message(message, 1), message, expires, retention)
        elif members or retention > 0:
            number = batch.message(message, len(members) + (retention > 0))
            for group in members:
                batch.delivery(group, number, message, 0.0, expires)
            if retention > 0:
                moment, origin = self.moment, None if expires is None else self.moment.clock
                self._keep(target.id, number, moment.place, (moment.now + retention, moment.clock), (expires, origin))
        for group in members:
            self.rings[group.path] += 1  # also for a delay: waiting consumers must look again when it ends

    def _target(
        self, address: Address, *, make: bool, groups: dict[int, list[SourceRow]]
    ) -> SourceRow | NarrowboatError | None:
        found = self.find(address)
        if isinstance(found, Conflict):
            return found
        if found is None:
            if address.kind is Kind.INBOX:
                return None
            if not make:
                return refuse.missing(address.path, address.kind.value)
            found = self._make(address, first_properties(address.path), declared=False, earliest=False)
        if address.kind is Kind.TOPIC:
            groups[found.id] = self._groups(found.id)
        # A message that is due in an ordered source, or in its topic, stands before those published now.
        for source in groups.get(found.id, [found]):
            if source.properties.ordered:
                self.tick(source)
        return found

    def _first(self, target: SourceRow, message: Outgoing, window: float) -> bool:
        """Whether no message of this id went to this address within the window; from now on there is one."""
        moment = self.moment
        if not self._forgot:
            self.forget()
            self._forgot = True
        return (
            self.connection.execute(
                "INSERT INTO known_id (source, name, until, clock) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (target.id, message.id, moment.now + window, moment.clock),
            ).rowcount
            == 1
        )

    def _tick_topic(self, topic: int) -> None:
        moment = self.moment
        due = []
        for clock, now in readings(self.connection, moment):
            due += self.connection.execute(
                "SELECT d.id, m.id, d.place, d.until, d.clock, d.span, d.expires, d.origin, m.key, m.priority"
                " FROM delivery d LEFT JOIN message m ON m.id = d.message"
                " WHERE d.source = ? AND d.clock = ? AND d.until <= ? AND d.until IS NOT NULL ORDER BY d.until, d.message",
                (topic, clock, now),
            ).fetchall()
        if not due:
            return
        groups = self._groups(topic)
        for group in groups:
            if group.properties.ordered:
                message_rows.tick(self.connection, group, moment, self._observed)
        for row, number, place, until, clock, retention, expires, origin, key, priority in due:
            if number is None:  # another program has deleted the message
                self.connection.execute("DELETE FROM delivery WHERE id = ?", (row,))
                continue
            for group in groups:
                message_rows.arrive(self.connection, group, (number, key, priority), place, (expires, origin))
                self.rings[group.path] += 1
            self.connection.execute("DELETE FROM delivery WHERE id = ?", (row,))
            retention = retention if strange.number(retention, 0, float("inf")) else 0
            if retention > 0:
                self._keep(topic, number, place, (until + retention, clock), (expires, origin))
            copies = len(groups) + (retention > 0)
            self.connection.execute("UPDATE message SET copies = copies + ? WHERE id = ?", (copies, number))
            message_rows.release(self.connection, [number])

    def _keep(
        self, topic: int, number: int, place: float, until: tuple[float, int], expires: tuple[float | None, int | None]
    ) -> None:
        self.connection.execute(
            "INSERT INTO kept (topic, message, place, until, clock, expires, origin) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (topic, number, place, *until, *expires),
        )

    def _make(self, address: Address, properties: Properties, *, declared: bool, earliest: bool) -> SourceRow:
        topic = None
        if address.kind is Kind.SUBSCRIPTION:
            parent = self._row(address.name) or self._make(
                Address(Kind.TOPIC, address.name), Properties(), declared=True, earliest=False
            )
            if isinstance(parent, Conflict):
                raise parent
            topic = parent.id
            self._tick_topic(topic)  # a new group does not get messages that were due before it
        inbox = address.kind is Kind.INBOX
        number = self.connection.execute(
            "INSERT INTO source (space, path, kind, topic, declared, lease, max_deliveries, ordered, priorities, seen, clock)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
            (
                self.space,
                address.path,
                address.kind.value,
                topic,
                declared,
                *properties,
                self.moment.now if inbox else None,
                self.moment.clock if inbox else None,
            ),
        ).fetchone()[0]
        made = SourceRow(number, address, topic, declared, properties)
        if earliest and topic is not None:
            self._replay(made, topic)
        return made

    def _replay(self, source: SourceRow, topic: int) -> None:
        """Begin with what the topic has kept."""
        self.sweep()
        rows = self.connection.execute(
            "SELECT k.message, m.key, m.priority, k.place, k.expires, k.origin FROM kept k JOIN message m ON m.id = k.message"
            " WHERE k.topic = ? ORDER BY k.place, k.message",
            (topic,),
        ).fetchall()
        for number, key, priority, place, expires, origin in rows:
            message_rows.arrive(self.connection, source, (number, key, priority), place, (expires, origin))
            self.connection.execute("UPDATE message SET copies = copies + 1 WHERE id = ?", (number,))
        message_rows.expire(self.connection, readings(self.connection, self.moment))

    def _adopt(self, found: SourceRow, properties: Properties) -> SourceRow:
        """Take the properties of the first consumer; what was published before is sorted by them."""
        self.tick(found)  # so that due messages are sorted with the rest
        self.connection.execute(
            "UPDATE source SET declared = 1, lease = ?, max_deliveries = ?, ordered = ?, priorities = ? WHERE id = ?",
            (*properties, found.id),
        )
        source = found._replace(declared=True, properties=properties)
        rows = self.connection.execute(
            "SELECT d.id, d.state, m.key, m.priority FROM delivery d JOIN message m ON m.id = d.message"
            " WHERE d.source = ?1 AND (d.state = 0 OR d.until IS NOT NULL) ORDER BY d.place, d.message",
            (found.id,),
        ).fetchall()
        keys: set[str] = set()
        changes = []
        for number, state, key, priority in rows:
            if state != message_rows.READY or not properties.ordered or not strange.text_or_none(key):
                key = None
            blocked = key is not None and key in keys
            if key is not None:
                keys.add(key)
            sorts = rank(source.path, properties, True, message_rows.level(priority))
            changes.append((message_rows.BLOCKED if blocked else state, key, sorts, number))
        self.connection.executemany("UPDATE delivery SET state = ?, key = ?, rank = ? WHERE id = ?", changes)
        return source

    def _drop(self, source: int) -> None:
        message_rows.purge(self.connection, source)
        out = self.connection.execute(
            "DELETE FROM delivery WHERE source = ? AND until IS NOT NULL RETURNING message", (source,)
        ).fetchall()
        message_rows.release(self.connection, [row[0] for row in out])
        self.connection.execute("DELETE FROM known_id WHERE source = ?", (source,))
        self.connection.execute("DELETE FROM source WHERE id = ?", (source,))

    def _groups(self, topic: int) -> list[SourceRow]:
        rows = self.connection.execute(f"SELECT {COLUMNS} FROM source WHERE topic = ? ORDER BY id", (topic,))  # noqa: S608  # the constant above
        found = (source_of(row) for row in rows.fetchall())
        return [group for group in found if group is not None]  # a strange one gets nothing, and stops no other

    def _number(self, path: str) -> int | None:
        """The id of a row that is there and strange."""
        row = self._columns(path)
        return None if row is None or source_of(row) is not None else int(row[0])

    def _row(self, path: str) -> SourceRow | Conflict | None:
        row = self._columns(path)
        return None if row is None else source_of(row) or strange_source(path, row)

    def _columns(self, path: str) -> tuple[Any, ...] | None:
        query = f"SELECT {COLUMNS} FROM source WHERE space = ? AND path = ?"  # noqa: S608  # our own words
        found: tuple[Any, ...] | None = self.connection.execute(query, (self.space, path)).fetchone()
        return found
