"""One driver and its clients' requests: those of one kind that came together are one call, and one commit.

All of it runs on the server's thread, in the order of `ORDER`: so what frees goes before what takes, and the withdrawal of an
owner never overtakes its attempt.
"""

from __future__ import annotations

import contextlib
import functools
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

from narrowboat.contract.locks import Busy, LockProvider, Request
from narrowboat.contract.messages import Broker, Feed, Properties, Source
from narrowboat.driver.serving import Served
from narrowboat.errors import InvalidArgument, NarrowboatError
from narrowboat_zeromq.protocol import fields, lock_items, message_items
from narrowboat_zeromq.protocol.frames import ITEMS_MAX, Malformed
from narrowboat_zeromq.server.ask import Ask, read, together
from narrowboat_zeromq.server.idle import ASK, LOOK, Idle
from narrowboat_zeromq.server.session import FEEDS_MAX, WAITING_MAX, Session

#: What is gathered, in the order in which it is done; all else comes after it, one by one.
ORDER = ("release", "renew", "settle", "extend", "attempt", "withdraw", "send")


class Desk(ABC):
    """See the module's text. `users`: its sessions. `idle`: its consumers that found nothing."""

    plain: frozenset[str]  #: what is done one by one

    def __init__(self, driver: LockProvider | Broker) -> None:
        self._driver = driver
        self.idle = Idle()
        self.users = 0

    def knows(self, op: str) -> bool:
        """Whether it can be asked that."""
        return op in self.plain or (op in ORDER and hasattr(self, op))

    def gathered(self, op: str, asks: Sequence[Ask]) -> None:
        """Answer requests of one kind, whatever happens: the thread serves everybody."""
        try:
            getattr(self, op)(asks)
        except Exception as error:
            for ask in asks:
                if not ask.answer:
                    ask.fail(error)

    def single(self, ask: Ask) -> None:
        """Answer one request that is not gathered."""
        answer = getattr(self, f"_{ask.op}")
        wanted = answer.__func__.__code__.co_argcount - 2
        if len(ask.args) != wanted:
            ask.fail(Malformed(f"it has {len(ask.args)} fields, and {wanted} are allowed"))
            return
        try:
            answer(ask, *ask.args)
        except Exception as error:
            ask.fail(error)

    def close(self) -> None:
        """Close the driver."""
        self._driver.close()

    def woken(self, session: Session[Any], whom: Sequence[str | int]) -> None:
        """They are told to ask again, so nobody needs to look for them."""
        now = time.monotonic()
        for number in whom:
            if isinstance(number, int) and number in session.feeds:
                self.idle.remove(session.feeds[number][1].address.path, session, number, now)

    @abstractmethod
    def forget(self, session: Session[Any]) -> None:
        """The session has ended: give back what it has."""

    def _ping(self, ask: Ask) -> None:
        self._driver.ping()
        ask.give(True)


class LockDesk(Desk):
    """Locks of one namespace."""

    plain = frozenset({"holders", "evict", "ping"})

    def __init__(self, driver: LockProvider) -> None:
        super().__init__(driver)
        self._locks = driver

    def attempt(self, asks: Sequence[Ask]) -> None:
        """Take or queue; who waits is remembered, so that its place is given back when its client goes away."""
        good = read(asks, self._wishes)
        together(good, self._attempt, lock_items.answer, key=_name)

    def _attempt(self, pairs: list[tuple[Session[Any], Request]]) -> Sequence[Any]:
        answers = self._locks.attempt([request for _, request in pairs])
        for (session, request), answer in zip(pairs, answers, strict=True):
            if request.wait and isinstance(answer, Busy):
                session.waiting[request.owner] = request
            else:
                session.waiting.pop(request.owner, None)
        return answers

    def renew(self, asks: Sequence[Ask]) -> None:
        """Start leases afresh."""
        together(read(asks, _grants), self._locks.renew, lock_items.answer)

    def release(self, asks: Sequence[Ask]) -> None:
        """Free them."""
        together(read(asks, _grants), self._locks.release, lock_items.answer)

    def withdraw(self, asks: Sequence[Ask]) -> None:
        """Free owners without a grant."""
        good = read(asks, self._wishes)
        for ask in good:
            for session, request in ask.items:
                session.waiting.pop(request.owner, None)
        together(good, lambda pairs: self._locks.withdraw([request for _, request in pairs]), lock_items.answer)

    def forget(self, session: Session[Any]) -> None:
        """Whoever waited waits no more. What is held stays until its lease ends."""
        waiting, session.waiting = list(session.waiting.values()), {}
        for start in range(0, len(waiting), ITEMS_MAX):
            with contextlib.suppress(NarrowboatError):  # its place in the queue ends by itself
                self._locks.withdraw(waiting[start : start + ITEMS_MAX])

    def _wishes(self, ask: Ask) -> list[tuple[Session[Any], Request]]:
        (values,) = ask.args
        found = [(ask.session, lock_items.request(value, ask.session.wake)) for value in fields.rows("requests", values)]
        if len({request.name for _, request in found}) != len(found):
            raise Malformed("requests: one name twice")
        if len(ask.session.waiting) > WAITING_MAX:
            raise Malformed(f"requests: {WAITING_MAX} owners of this session wait already")
        return found

    def _holders(self, ask: Ask, name: object) -> None:
        ask.give([lock_items.shown(each) for each in self._locks.holders(fields.text_or_none("name", name))])

    def _evict(self, ask: Ask, name: object, token: object) -> None:
        ask.give(self._locks.evict(fields.text("name", name), fields.whole("token", token, -(2**63))))


def _name(pair: tuple[Session[Any], Request]) -> str:
    return pair[1].name


def _grants(ask: Ask) -> list[Any]:
    (values,) = ask.args
    return [lock_items.grant(value) for value in fields.rows("grants", values)]


class MessageDesk(Desk):
    """Messages of one namespace."""

    plain = frozenset(
        {
            "receive",
            "open",
            "use",
            "inbox",
            "close",
            "declare",
            "stored",
            "alter",
            "sources",
            "delete",
            "purge",
            "depth",
            "ping",
        }
    )

    def __init__(self, driver: Broker, served: Served) -> None:
        super().__init__(driver)
        self._broker = driver
        self._claims = served.messages

    def send(self, asks: Sequence[Ask]) -> None:
        """Store what several clients send in one transaction."""
        together(read(asks, self._outgoing), self._broker.send, message_items.receipt)

    def settle(self, asks: Sequence[Ask]) -> None:
        """Settle what came for one feed together."""
        self._by_feed(asks, lambda feed: feed.settle, _settlements)

    def extend(self, asks: Sequence[Ask]) -> None:
        """Extend each request by itself: their seconds differ."""
        for ask in asks:
            if len(ask.args) == 3:  # a feed, deliveries, seconds
                self._by_feed([ask], functools.partial(self._extending, ask.args[2]), _claims)
            else:
                ask.fail(Malformed("an extension has a feed, deliveries and seconds"))

    def forget(self, session: Session[Any]) -> None:
        """Its feeds give back what they have."""
        for number in list(session.feeds):
            with contextlib.suppress(NarrowboatError):
                self._end(session, number)

    def _end(self, session: Session[Any], number: int) -> None:
        feed, source = session.feeds.pop(number)
        self.idle.remove(source.address.path, session, number, time.monotonic())
        feed.close()

    def _extending(self, seconds: object, feed: Feed) -> Any:
        longer = fields.number("seconds", seconds, 0.0, self._claims.lease_max)
        return lambda found: feed.extend(found, longer)

    def _by_feed(self, asks: Sequence[Ask], act: Any, decode: Any) -> None:
        groups: dict[tuple[int, object], list[Ask]] = {}
        for ask in asks:
            groups.setdefault((id(ask.session), str(ask.args[0]) if ask.args else None), []).append(ask)
        for group in groups.values():
            found = group[0].session.feeds.get(group[0].args[0]) if _numbered(group[0]) else None
            if found is None:
                for ask in group:
                    ask.forgotten()
                continue
            together(read(group, decode), act(found[0]), lock_items.answer)

    def _outgoing(self, ask: Ask) -> list[Any]:
        (values,) = ask.args
        return [message_items.message(value, ask.bodies, self._claims) for value in fields.rows("messages", values)]

    def _receive(self, ask: Ask, number: object, limit: object) -> None:
        found = ask.session.feeds.get(number) if type(number) is int else None
        if found is None or type(number) is not int:
            ask.forgotten()
            return
        feed, source = found
        deliveries, retry_after = feed.receive(fields.whole("limit", limit, 1, ITEMS_MAX))
        now, path = time.monotonic(), source.address.path
        if deliveries or not retry_after:
            self.idle.remove(path, ask.session, number, now)
        else:
            self.idle.add(path, ask.session, number, feed, now + min(LOOK, retry_after))
            retry_after = ASK
        ask.give([[message_items.delivery(each) for each in deliveries], retry_after], [each.body for each in deliveries])

    def _open(self, ask: Ask, number: object, source: object, earliest: object) -> None:
        feeds, key = ask.session.feeds, self._free(ask.session, number)
        wanted = message_items.sourced(source, self._claims)
        if key not in feeds:  # asked again, the answer was lost
            feed = self._broker.open(wanted, earliest=fields.flag("earliest", earliest), wake=ask.session.wake(key))
            feeds[key] = feed, wanted
        ask.give(True)

    def _use(self, ask: Ask, number: object, lease: object) -> None:
        found = ask.session.feeds.get(number) if type(number) is int else None
        if found is None:
            ask.forgotten()
            return
        feed, source = found
        wanted = fields.number("lease", lease, self._claims.lease_min, self._claims.lease_max)
        feed.use(source.properties._replace(lease=wanted))
        ask.give(True)

    def _inbox(self, ask: Ask, number: object) -> None:
        key = self._free(ask.session, number)
        address, feed = self._broker.inbox(ask.session.wake(key))
        ask.session.feeds[key] = feed, Source(address, Properties())
        ask.give(message_items.named(address))

    def _free(self, session: Session[Any], number: object) -> int:
        key = fields.whole("feed", number, 1, 2**53 - 1)
        if len(session.feeds) >= FEEDS_MAX:
            raise InvalidArgument(f"this session has {FEEDS_MAX} consumers open, which is as many as it may have")
        return key

    def _close(self, ask: Ask, number: object) -> None:
        if type(number) is int and number in ask.session.feeds:
            self._end(ask.session, number)
        ask.give(True)

    def _declare(self, ask: Ask, source: object, earliest: object) -> None:
        self._broker.declare(message_items.sourced(source, self._claims), earliest=fields.flag("earliest", earliest))
        ask.give(True)

    def _stored(self, ask: Ask, address: object) -> None:
        found = self._broker.stored(fields.address(address))
        ask.give(None if found is None else list(found))

    def _alter(self, ask: Ask, address: object, lease: object, limit: object) -> None:
        wanted = None if lease is None else fields.number("lease", lease, self._claims.lease_min, self._claims.lease_max)
        most = None if limit is None else fields.whole("max_deliveries", limit)
        ask.give(list(self._broker.alter(fields.address(address), lease=wanted, max_deliveries=most)))

    def _sources(self, ask: Ask) -> None:
        ask.give([message_items.named(each) for each in self._broker.sources()])

    def _delete(self, ask: Ask, address: object) -> None:
        ask.give(self._broker.delete(fields.address(address)))

    def _purge(self, ask: Ask, address: object) -> None:
        ask.give(self._broker.purge(fields.address(address)))

    def _depth(self, ask: Ask, address: object) -> None:
        ask.give(list(astuple(self._broker.depth(fields.address(address)))))


def _numbered(ask: Ask) -> bool:
    return bool(ask.args) and type(ask.args[0]) is int


def _settlements(ask: Ask) -> list[Any]:
    _, values = ask.args
    return [message_items.settled(value) for value in fields.rows("settlements", values)]


def _claims(ask: Ask) -> list[Any]:
    _, values, _ = ask.args
    return [message_items.claimed(value) for value in fields.rows("deliveries", values)]
