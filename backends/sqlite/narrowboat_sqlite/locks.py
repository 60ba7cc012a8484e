"""Locks in an SQLite file: between the processes of one machine, without a server.

One transaction for each call, however many it carries. Waiters are rows, served in the order in which they came. Within
this process a release wakes the next one directly; other processes see the commit by their watcher and wake their own.

It is not for network file systems, whose file locks are not reliable enough for SQLite. Deleting or replacing the file while
it is open deletes the locks.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from narrowboat.capabilities import Expiry, LockCapabilities, Scope, Support, Survives, WaitOrder, WakeUp
from narrowboat.contract.backend import Context, LockBackend
from narrowboat.contract.locks import Busy, Grant, Holder, LockProvider, Released, Request
from narrowboat.driver.admission import lost
from narrowboat.dsn import Url
from narrowboat.errors import NarrowboatError, Reason
from narrowboat_sqlite.clocks.clock import boot_id, clock_id
from narrowboat_sqlite.clocks.foreign_leases import Observer
from narrowboat_sqlite.connection.database import Database, path_of, prepare
from narrowboat_sqlite.options import SCHEME, Durability, Options
from narrowboat_sqlite.tables import schema
from narrowboat_sqlite.tables.lock_rows import LOOK_AGAIN, PATIENCE, Rows, TokensUsedUp
from narrowboat_sqlite.waking import waiting
from narrowboat_sqlite.waking.watcher import watch

#: Whom to wake once the transaction is committed: a provider's waiters, the name, their owners.
Heads = list[tuple[waiting.Waiting, str, list[str]]]


class SqliteLocks(LockProvider):
    """One connection to the file for all calls; the watcher is shared by the process."""

    def __init__(self, path: str, options: Options, context: Context, capabilities: LockCapabilities) -> None:
        self.capabilities = capabilities
        self._clock = context.clock
        self._full = options.durability is Durability.FULL
        self._poll = options.poll
        self._database = Database(
            path, durability=options.durability, timeout=context.timeout, schema=schema("locks"), mode=options.permissions
        )
        self._rows = Rows(options.prefix, Observer(clock_id(context.clock)), boot=boot_id(), reserving=not self._full)
        self._watcher = watch(self._database)
        self._released = False
        self.waiting = waiting.Waiting(self._begin_to_watch, self._end_watching)
        self._key = (self._database.key, options.prefix)
        waiting.join(self._key, self)
        context.watch(self._clock_moved)

    def attempt(self, requests: Sequence[Request]) -> list[Grant | Busy | NarrowboatError]:
        """Take or queue, the whole batch in one transaction."""
        waited = [request.wait and self.waiting.arm(request) for request in requests]
        # A contender that has waited before will likely wait on, and a place in the queue need not survive a loss of power.
        passing = self._full and all(waited)
        begun = self._clock()
        try:
            answers = self._take(requests, passing)
        except TokensUsedUp:
            self._database.write(self._rows.reserve, durable=True)
            answers = self._take(requests, passing)
        if passing and any(isinstance(answer, Grant) for answer in answers):
            # This makes the grants durable before anybody hears of them: a sync takes all commits before it along.
            self._database.write(_touch, durable=True)
        busy = False
        for request, answer in zip(requests, answers, strict=True):
            if request.wait:
                if isinstance(answer, Busy):
                    busy = True
                    self.waiting.will_look(request.name, request.owner, begun + answer.retry_after)
                else:
                    self.waiting.disarm(request.name, request.owner)
        if busy:
            self.waiting.watched()
        return answers

    def renew(self, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        """Start leases afresh; what ran out is deleted here. Not synced: after a loss of power the holder is gone, too."""

        def work(connection: sqlite3.Connection) -> tuple[list[Grant | NarrowboatError], Heads]:
            now = self._clock()
            answers: list[Grant | NarrowboatError] = []
            for grant in grants:
                met = self._rows.renew(connection, grant, now)
                answers.append(lost(grant, met, backend=SCHEME) if isinstance(met, Reason) else met or grant)
            return answers, self._next(connection, [grant.name for grant in grants])  # some have ended, some end earlier now

        answers, heads = self._database.write(work, passing=True)
        _wake(heads)
        return answers

    def release(self, grants: Sequence[Grant]) -> list[Released | NarrowboatError]:
        """Free each lease and wake the next waiters. An expired lease is deleted and answered `NOT_HELD`."""

        def work(connection: sqlite3.Connection) -> tuple[list[Released | NarrowboatError], Heads]:
            now = self._clock()
            answers: list[Released | NarrowboatError] = [
                Released.RELEASED if self._rows.free(connection, grant, now) else Released.NOT_HELD for grant in grants
            ]
            return answers, self._next(connection, [grant.name for grant in grants])

        answers, heads = self._database.write(work)
        for grant in grants:
            if grant.name in self.waiting:  # an interrupt may have struck between the grant and the end of the wait
                self.waiting.disarm(grant.name, grant.owner)
        _wake(heads)
        return answers

    def withdraw(self, requests: Sequence[Request]) -> list[NarrowboatError | None]:
        """Delete the owners' rows. An attempt is a transaction that has ended before this begins: none can land later."""

        def work(connection: sqlite3.Connection) -> Heads:
            for request in requests:
                self._rows.withdraw(connection, request.name, request.owner)
            return self._next(connection, [request.name for request in requests])

        heads = self._database.write(work)
        for request in requests:
            self.waiting.disarm(request.name, request.owner)
        _wake(heads)
        return [None] * len(requests)

    def holders(self, name: str | None) -> list[Holder]:
        """Whose lease runs. What a foreign clock wrote is shown with the longest time that it may still last."""
        return self._database.read(lambda connection: self._rows.holders(connection, name, self._clock()))

    def evict(self, name: str, token: int) -> bool:
        """Break that generation; its holder learns of it at its next renewal."""

        def work(connection: sqlite3.Connection) -> tuple[bool, Heads]:
            return self._rows.evict(connection, name, token, self._clock()), self._next(connection, [name])

        found, heads = self._database.write(work)
        _wake(heads)
        return found

    def ping(self) -> None:
        """An empty write transaction: it fails where any call would."""
        self._database.write(lambda connection: None)

    def close(self) -> None:
        """Close the connection; the watcher ends with its last user in this process."""
        waiting.leave(self._key, self)
        if not self._released:
            self._released = True
            self._watcher.unsubscribe(self._look)
            self._watcher.release()
        self._database.close()

    def _take(self, requests: Sequence[Request], passing: bool) -> list[Grant | Busy | NarrowboatError]:
        return self._database.write(lambda connection: self._rows.take(connection, requests, self._clock()), passing=passing)

    def _next(self, connection: sqlite3.Connection, names: Iterable[str]) -> Heads:
        """Who of this process may go now under those names, seen from inside the transaction that freed them."""
        return [
            (provider.waiting, name, provider.heads(connection, name))
            for provider in waiting.neighbours(self._key)
            for name in names
            if name in provider.waiting
        ]

    def heads(self, connection: sqlite3.Connection, name: str) -> list[str]:
        """The owners who may go now under `name`, by this provider's clock, or who are to look again."""
        return self._rows.heads(connection, name, self._clock(), self.waiting.looks_at)

    def _look(self, connection: sqlite3.Connection) -> None:
        """On the watcher's thread, after others' commits."""
        for name in self.waiting.names():
            self.waiting.wake(name, self.heads(connection, name))

    def _clock_moved(self) -> None:
        """A test has moved its clock: wake the waiters whose turn has come by it."""
        if not self._released:
            _wake(self._database.read(lambda connection: self._next(connection, self.waiting.names())))

    def _begin_to_watch(self) -> None:
        self._watcher.subscribe(self._look, self._poll)

    def _end_watching(self) -> None:
        self._watcher.unsubscribe(self._look)


def _wake(heads: Heads) -> None:
    for waiters, name, owners in heads:
        waiters.wake(name, owners)


def _touch(connection: sqlite3.Connection) -> None:
    """Change something: a commit without a changed page syncs nothing, and SQLite writes no page for a value that stays."""
    connection.execute("UPDATE lock_counter SET next = next + 1 WHERE id = 1")


def _capabilities(url: Url, options: Options) -> LockCapabilities:
    return LockCapabilities(
        scope=Scope.HOST,
        expiry=Expiry.LEASE,
        survives=Survives.POWER if options.durability is Durability.FULL else Survives.CRASH,
        fencing=Support.NATIVE,
        fencing_survives=Survives.POWER,
        order=WaitOrder.FIFO,
        wake=WakeUp.NOTIFIED if options.poll <= 0.02 else WakeUp.POLLED,
        shared=Support.NATIVE,
        semaphore=Support.NATIVE,
        holders=Support.NATIVE,
        evict=Support.NATIVE,
        at_least=Support.NATIVE,
        dead_waiter_bound=PATIENCE + LOOK_AGAIN + 1.0,
    )


def _open(url: Url, options: Options, context: Context) -> LockProvider:
    return SqliteLocks(path_of(url), options, context, _capabilities(url, options))


locks = LockBackend(
    scheme=SCHEME,
    summary="between the processes of one machine, in a file, without a server",
    options=Options,
    capabilities=_capabilities,
    open=_open,
    prepare=prepare,
    example="sqlite:///shop.db",
)
