"""Messages in a PostgreSQL database: rows that consumers claim for a lease, past those that others have claimed.

Every call is one transaction of one function, so a process may be killed at any point, and what was answered is on the disk.
Time is the server's clock. Consumers are woken by NOTIFY, which is sent only where somebody listens.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from narrowboat.capabilities import BrokerCapabilities, Scope, Support, Survives
from narrowboat.contract import (
    Address,
    Broker,
    BrokerBackend,
    Context,
    Depth,
    Feed,
    Kind,
    Outgoing,
    Properties,
    Receipt,
    Source,
)
from narrowboat.driver.claims import keeper
from narrowboat.driver.sources import DEAD, first_properties, has_dead_letters
from narrowboat.dsn import Url
from narrowboat.errors import NarrowboatError, Unavailable
from narrowboat_postgresql.contents import bodies, numbers, parts, target
from narrowboat_postgresql.errors import refuse
from narrowboat_postgresql.feed import IDLE, PostgresFeed
from narrowboat_postgresql.messages import Messages
from narrowboat_postgresql.options import SCHEME, MessageOptions, fit
from narrowboat_postgresql.outbox import enlist
from narrowboat_postgresql.place import Place

#: What is stored with a source, and what alters it. NULL leaves what is there.
_STORED = "SELECT kind, declared, lease, max_deliveries, ordered, priorities FROM nb.source WHERE space = $1 AND key = $2"
_ALTER = (
    "UPDATE nb.source SET lease = coalesce($4::double precision, lease), max_deliveries = coalesce($5::integer, max_deliveries)"
    " WHERE space = $1 AND key = $2 AND kind = $3 AND declared"
    " RETURNING kind, declared, lease, max_deliveries, ordered, priorities"
)
_NONE = (0, 0, 0)
#: Bytes of bodies in one call. A statement of PostgreSQL's has a gigabyte at most, and its memory.
_TOGETHER = 64 * 1024 * 1024


def capabilities(url: Url, options: MessageOptions) -> BrokerCapabilities:
    """What `postgresql://` claims. Replay only where the URL says for how long topics keep messages."""
    claims = keeper(
        Scope.NETWORK,
        Survives.POWER,
        work=Support.NATIVE,
        dedup=options.dedup,
        retention=options.retention,
        alter=Support.NATIVE,
        listing=Support.NATIVE,
        oldest=Support.NATIVE,
    )
    return dataclasses.replace(claims, outbox=Support.NATIVE)


class PostgresBroker(Broker):
    """One user of one namespace of messages."""

    def __init__(self, url: Url, options: MessageOptions, context: Context) -> None:
        self.capabilities = capabilities(url, options)
        self._options = options
        self._messages = Messages(url, options, context)
        self._feeds: set[PostgresFeed] = set()

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        """Store all, in one transaction for each address; they are committed when this returns."""
        self._messages.check_open()
        answers: list[Receipt | NarrowboatError] = [Receipt(message.id) for message in messages]
        runs: dict[Address, list[int]] = {}
        for at, message in enumerate(messages):
            runs.setdefault(message.to, []).append(at)
        pieces = [piece for run in runs.values() for piece in _pieces(messages, run)]
        for number, piece in enumerate(pieces):
            try:
                self._send([messages[at] for at in piece], piece, answers)
            except Unavailable as error:
                if len(pieces) == 1:
                    raise
                for at in piece:
                    answers[at] = self._unknown(messages[at], error)
                for at in (at for rest in pieces[number + 1 :] for at in rest):
                    answers[at] = refuse.not_sent(messages[at].id, messages[at].to.path, error, cause=error)
                break
        return answers

    def _unknown(self, message: Outgoing, error: Unavailable) -> NarrowboatError:
        if not error.sent:
            return refuse.not_sent(message.id, message.to.path, error, cause=error)
        return refuse.unknown(message.id, message.to.path, error, dedup=self._options.dedup > 0, cause=error)

    def _send(self, messages: Sequence[Outgoing], places: Sequence[int], answers: list[Receipt | NarrowboatError]) -> None:
        address, options = messages[0].to, self._options
        later = [at for at, message in enumerate(messages, 1) if message.delay > 0]
        soon = any(0 < message.delay < IDLE + 1.0 for message in messages)
        once = {str(at): fit(message.id) for at, message in enumerate(messages, 1) if message.dedup}
        (row,) = self._messages.sending.call(
            "send",
            *target(address),
            str(first_properties(address.path).max_deliveries),
            "t" if self._messages.auto_declare else "f",
            str(options.dedup),
            str(options.retention),
            parts(messages),
            bodies(messages),
            numbers(later),
            "t" if soon else "f",
            json.dumps(once) if once else None,
            doing=f"publishing to {address.path!r}",
        )
        verdict, kind, twice = [(each or b"").decode() for each in row]
        if verdict:
            found = (
                refuse.taken(address.path, kind, address.kind.value)
                if verdict == "taken"
                else refuse.missing(address.path, address.kind.value)
            )
            for at in places:
                answers[at] = found
        for at in map(int, filter(None, twice.strip("{}").split(","))):
            answers[places[at - 1]] = Receipt(messages[at - 1].id, duplicate=True)

    def enlist(self, connection: Any, message: Outgoing) -> Awaitable[object] | None:
        """Store it in the transaction of `connection`."""
        self._messages.check_open()
        return enlist(connection, message, self._options)

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        """A feed from `source`, which exists from now on."""
        self._messages.check_open()
        number = self._messages.declare(self._messages.looking, *source, earliest=earliest)
        return self._feed(source, number, wake)

    def inbox(self, wake: Callable[[], None]) -> tuple[Address, Feed]:
        """A private address; it goes with the feed, and a minute after its process at the latest."""
        self._messages.check_open()
        address = Address(Kind.INBOX, f"narrowboat.inbox.{secrets.token_hex(16)}")
        (row,) = self._messages.looking.call("inbox", address.path, doing="making an inbox")
        return address, self._feed(Source(address, Properties(max_deliveries=0)), int(row[0] or b""), wake)

    def declare(self, source: Source, *, earliest: bool) -> None:
        """Make it if it is not there; refuse it when it differs."""
        self._messages.check_open()
        self._messages.declare(self._messages.looking, *source, earliest=earliest)

    def stored(self, address: Address) -> Properties | None:
        """What a consumer declared, or somebody altered since."""
        return self._stored(address, _STORED, "looking up")

    def alter(self, address: Address, *, lease: float | None, max_deliveries: int | None) -> Properties:
        """Store another lease or limit, in one statement."""
        change = [None if each is None else str(each) for each in (lease, max_deliveries)]
        found = self._stored(address, _ALTER, "altering", address.kind.value, *change)
        if found is None:
            raise refuse.undeclared(address.path, address.kind.value)
        return found

    def _stored(self, address: Address, statement: str, doing: str, *more: str | None) -> Properties | None:
        self._messages.check_open()
        rows = self._messages.looking.ask(statement, fit(address.path), *more, doing=f"{doing} {address.path!r}")
        if not rows or address.kind is Kind.TOPIC:
            return None
        kind, declared, lease, limit, ordered, levels = [(each or b"").decode() for each in rows[0]]
        self._kind(address, kind.encode())
        return Properties(float(lease), int(limit), ordered == "t", int(levels)) if declared == "t" else None

    def sources(self) -> list[Address]:
        """What there is, without inboxes and dead letters."""
        self._messages.check_open()
        rows = self._messages.looking.ask(
            "SELECT s.kind, s.path, t.path FROM nb.source s LEFT JOIN nb.source t ON t.id = s.topic"
            " WHERE s.space = $1 AND s.kind <> 'inbox'",
            doing="looking for queues",
        )
        found = [_address(*((each or b"").decode() for each in row)) for row in rows]
        return [address for address in found if not address.path.endswith(DEAD)]

    def delete(self, address: Address) -> bool:
        """Delete a source with all its messages. Deliveries in flight become stale."""
        self._messages.check_open()
        rows = self._messages.looking.call("drop", fit(address.path), address.kind.value, doing=f"deleting {address.path!r}")
        return self._kind(address, rows[0][0] if rows else None, missing=False)

    def purge(self, address: Address) -> int:
        """Delete ready and delayed messages; of a topic, those that are not due yet."""
        self._messages.check_open()
        rows = self._messages.looking.call("purge", fit(address.path), doing=f"purging {address.path!r}")
        return int(rows[0][1] or b"") if self._kind(address, rows[0][0] if rows else None) else 0

    def depth(self, address: Address) -> Depth:
        """How many messages are ready, in flight, delayed, dead; of a topic, how many are not due yet."""
        self._messages.check_open()
        counts, oldest = self._depth(address)
        dead, _ = self._depth(address.dead, strict=False) if has_dead_letters(address) else (_NONE, None)
        return Depth(*counts, sum(dead), oldest)

    def ping(self) -> None:
        """An empty call: it fails where any would."""
        self._messages.check_open()
        self._messages.looking.call("extend", "{}", "{}", "1", doing="a ping")

    def close(self) -> None:
        """Close every feed, the thread and the connections."""
        if self._messages.closed:
            return
        try:
            for feed in list(self._feeds):
                # What cannot be given back now comes back when its lease ends.
                with contextlib.suppress(NarrowboatError):
                    feed.close()
        finally:
            self._messages.close()

    def _feed(self, source: Source, number: int, wake: Callable[[], None]) -> Feed:
        feed = PostgresFeed(self._messages, source, number, wake, self._feeds.discard)
        self._feeds.add(feed)
        return feed

    def _depth(self, address: Address, *, strict: bool = True) -> tuple[tuple[int, int, int], float | None]:
        rows = self._messages.looking.call(
            "depth", fit(address.path), self._messages.retention, doing=f"counting {address.path!r}"
        )
        if strict and not self._kind(address, rows[0][0] if rows else None):
            return _NONE, None
        if not rows or rows[0][0] != address.kind.value.encode():
            return _NONE, None
        _, ready, flight, delayed, oldest = rows[0]
        return (int(ready or b""), int(flight or b""), int(delayed or b"")), None if oldest is None else max(0.0, float(oldest))

    def _kind(self, address: Address, found: bytes | None, *, missing: bool = True) -> bool:
        """Whether it is there; raises where it is something else, or should be there."""
        if found is None:
            if missing and not self._messages.auto_declare and address.kind is not Kind.INBOX:
                raise refuse.missing(address.path, address.kind.value)
            return False
        if found != address.kind.value.encode():
            raise refuse.taken(address.path, found.decode(), address.kind.value)
        return True


def _pieces(messages: Sequence[Outgoing], run: Sequence[int]) -> list[list[int]]:
    """The numbers in `run`, in pieces whose bodies fit into one call."""
    pieces: list[list[int]] = [[]]
    size = 0
    for at in run:
        size += len(messages[at].body)
        if pieces[-1] and size > _TOGETHER:
            pieces.append([])
            size = len(messages[at].body)
        pieces[-1].append(at)
    return pieces


def prepare(url: Url, options: MessageOptions) -> Url:
    """Refuse what this scheme does not take, and load the client library."""
    import narrowboat_postgresql.library  # noqa: F401  # which importing the backend must not

    Place(url, options, 1.0)
    return url


def _address(kind: str, path: str, topic: str) -> Address:
    return Address(Kind(kind), topic, path[len(topic) + 1 :]) if topic else Address(Kind(kind), path)


broker = BrokerBackend(
    scheme=SCHEME,
    summary="messages as rows in a PostgreSQL database",
    options=MessageOptions,
    capabilities=capabilities,
    open=PostgresBroker,
    prepare=prepare,
    extra="postgresql",
    example="postgresql://shop@db.example/shop",
)
