"""Locks of a `narrowboat serve`: each call is one request, whose answer is the server's driver's.

Owners who wait are known here by their names: the server pushes who may go, and nobody polls. After a connection that was lost
all of them look, because a push may have been lost with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from narrowboat.capabilities import Concurrency, Expiry, LockCapabilities, Scope, Support, Survives, WaitOrder, WakeUp
from narrowboat.contract.backend import Context, LockBackend
from narrowboat.contract.locks import Busy, Grant, Holder, LockProvider, Released, Request
from narrowboat.dsn import Url
from narrowboat.errors import NarrowboatError
from narrowboat_zeromq.client import opening
from narrowboat_zeromq.options import SCHEME, Options
from narrowboat_zeromq.protocol import lock_items
from narrowboat_zeromq.protocol.faults import from_wire
from narrowboat_zeromq.protocol.frames import ITEMS_MAX


class ZeroMQLocks(LockProvider):
    """One session with the server."""

    def __init__(self, url: Url, options: Options, context: Context) -> None:
        self.capabilities = capabilities(url, options)
        self._timeout = context.timeout
        self._waiting: dict[str, Callable[[], None]] = {}
        self._link = opening.link("locks", url, options, context, self._woken)

    def attempt(self, requests: Sequence[Request]) -> list[Grant | Busy | NarrowboatError]:
        """Take or queue. The wake of an owner who waits is armed before the request leaves."""
        waiting = self._waiting
        for request in requests:
            if request.wait:
                waiting[request.owner] = request.wake
        answers = self._each("attempt", requests, lock_items.wish, lock_items.taken)
        for request, answer in zip(requests, answers, strict=True):
            if answer.__class__ is not Busy:
                waiting.pop(request.owner, None)
        return answers

    def renew(self, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        """Start leases afresh."""
        return self._each("renew", grants, lock_items.granted, lock_items.taken)

    def release(self, grants: Sequence[Grant]) -> list[Released | NarrowboatError]:
        """Free each generation."""
        return self._each("release", grants, lock_items.granted, lambda value, grant: lock_items.released(value))

    def withdraw(self, requests: Sequence[Request]) -> list[NarrowboatError | None]:
        """Make sure that the owners neither hold nor wait. An attempt of theirs that is still under way comes before it."""
        for request in requests:
            self._waiting.pop(request.owner, None)
        return self._each("withdraw", requests, lock_items.wish, lambda value, request: _done(value))

    def holders(self, name: str | None) -> list[Holder]:
        """Whose lease runs, by the server's clock."""
        found, _ = self._link.ask("holders", name)
        return [lock_items.holder(each) for each in found]

    def evict(self, name: str, token: int) -> bool:
        """Break that generation."""
        return bool(self._link.ask("evict", name, token)[0])

    def ping(self) -> None:
        """An empty write transaction on the server's file."""
        self._link.ask("ping")

    def close(self) -> None:
        """End the session."""
        self._link.close(self._timeout)

    def _each(
        self, op: str, items: Sequence[Any], encode: Callable[[Any], list[Any]], decode: Callable[[Any, Any], Any]
    ) -> list[Any]:
        answers: list[Any] = []
        for start in range(0, len(items), ITEMS_MAX):
            part = items[start : start + ITEMS_MAX]
            found, _ = self._link.ask(op, [encode(each) for each in part])
            answers += [decode(value, each) for value, each in zip(found, part, strict=True)]
        return answers

    def _woken(self, owners: Sequence[Any] | None) -> None:
        """On the I/O thread."""
        wakes = list(self._waiting.values()) if owners is None else [self._waiting.get(owner) for owner in owners]
        for wake in wakes:
            if wake is not None:
                wake()


def _done(value: object) -> NarrowboatError | None:
    return None if value is None else from_wire(value)


def capabilities(url: Url, options: Options) -> LockCapabilities:
    """What `zmq://` claims: what SQLite does, over the network, and on one node."""
    return LockCapabilities(
        scope=Scope.NETWORK,
        expiry=Expiry.LEASE,
        survives=opening.survives(options),
        fencing=Support.NATIVE,
        fencing_survives=Survives.POWER,
        order=WaitOrder.FIFO,
        wake=WakeUp.NOTIFIED,
        shared=Support.NATIVE,
        semaphore=Support.NATIVE,
        holders=Support.NATIVE,
        evict=Support.NATIVE,
        at_least=Support.NATIVE,
        concurrency=Concurrency.MULTIPLEXED,
        dead_waiter_bound=8.0,
    )


locks = LockBackend(
    scheme=SCHEME,
    summary="of a `narrowboat serve`: one SQLite file behind one port, for machines that have no server",
    options=Options,
    capabilities=capabilities,
    open=ZeroMQLocks,
    prepare=opening.prepare,
    extra="zeromq",
    example="zmq://127.0.0.1:5555/shop",
)
