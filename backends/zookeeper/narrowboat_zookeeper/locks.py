"""Locks in ZooKeeper: ephemeral sequential nodes under the lock's node. Each waiter watches the node ahead of it.

A call sends the requests of all its members at once, and waits once. An uncontended acquire is one wait (create and list), and
so is a release (delete). A node's name has its owner's id, so a create whose answer was lost is found again. The session is the
lease: one `sync` renews all the locks that it carries.

Validity is counted by the holder's own clock, from the last request that the leader acknowledged. It does not depend on kazoo's
view of the session. A session that has ended takes all its grants with it, even if kazoo reconnects.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from narrowboat.capabilities import (
    Expiry,
    LockCapabilities,
    Scope,
    Support,
    Survives,
    WaitOrder,
    WakeUp,
)
from narrowboat.contract.backend import Context, LockBackend
from narrowboat.contract.locks import Busy, Grant, Holder, LockProvider, Released, Request
from narrowboat.dsn import Url
from narrowboat.errors import NarrowboatError
from narrowboat_zookeeper import holding, looking, taking
from narrowboat_zookeeper.options import SCHEME, Ensemble, Options, free_after
from narrowboat_zookeeper.provider_state import PREFETCHED_LOOK, ProviderState, Requests, Steps
from narrowboat_zookeeper.queue_node import PATIENCE


class ZooKeeperLocks(LockProvider):
    """One session; see the module's text."""

    def __init__(self, ensemble: Ensemble, context: Context, capabilities: LockCapabilities) -> None:
        self.capabilities = capabilities
        self._timeout = context.timeout
        self._clock = context.clock
        self._state = ProviderState(ensemble, context)

    def attempt(self, requests: Sequence[Request]) -> list[Grant | Busy | NarrowboatError]:
        """Take the names, or queue for them. The whole batch needs only as many waits as its slowest member."""
        now = self._clock()
        self._state.enter(requests)
        try:
            return self._run([taking.take(self._state, request, now) for request in requests])
        finally:
            self._state.leave(requests)

    def renew(self, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        """Renew with one `sync` for all. A deleted node is known by its watch, or is asked for where it has none yet."""
        now = self._clock()
        return self._run([holding.keep(self._state, grant, now) for grant in grants])

    def release(self, grants: Sequence[Grant]) -> list[Released | NarrowboatError]:
        """Delete each node. A path is used once, so this frees no later holder."""
        return self._run([holding.free(self._state, grant) for grant in grants])

    def withdraw(self, requests: Sequence[Request]) -> list[NarrowboatError | None]:
        """Delete every node with the owner's id. Earlier requests of this session have taken effect by then."""
        return self._run([holding.withdraw(self._state, request) for request in requests])

    def holders(self, name: str | None) -> list[Holder]:
        """The holders, from the children of the lock's node, or of all locks' nodes, and their data."""
        found: list[Holder] = self._ask(looking.holders(self._state, name))
        return found

    def evict(self, name: str, token: int) -> bool:
        """Delete that generation's node. Its data is changed first, so that the holder knows it for an eviction."""
        done: bool = self._ask(looking.evict(self._state, name, token))
        return done

    def ping(self) -> None:
        """A `sync`, which makes a round trip to the leader."""
        self._ask(looking.ping(self._state))

    def close(self) -> None:
        """End the session, and all its locks with it. Remove the nodes that this leaves empty."""
        ends = time.monotonic() + self._timeout
        self._state.janitor.close(self._timeout / 4)
        rest = self._state.janitor.rest()
        if rest and self._state.session.up:
            try:
                self._state.sweep(rest[:1000])
            except NarrowboatError:
                pass  # another provider sweeps as well; otherwise an empty node stays
        self._state.session.close(max(0.1, ends - time.monotonic()))

    # -- exchanges ------------------------------------------------------------------------------------------------

    def _ask(self, member: Steps) -> Any:
        (answer,) = self._run([member])
        if isinstance(answer, NarrowboatError):
            raise answer
        return answer

    def _run(self, members: Sequence[Steps]) -> list[Any]:
        """Run the steps of all members. Each round sends all their requests at once, and waits once."""
        ends = time.monotonic() + self._timeout
        answers: list[Any] = [None] * len(members)
        active: list[tuple[int, Steps, Requests]] = []
        for index, member in enumerate(members):
            self._step(index, member, None, active, answers)
        self._state.session.check_open()
        while active:
            pipe = self._state.session.pipe(ends)
            with self._state.session.wakeup.held():
                sent = [[request[0](pipe, *request[1:]) for request in requests] for _, _, requests in active]
            pipe.wait()
            waiting, active = active, []
            for (index, member, _), results in zip(waiting, sent, strict=True):
                self._step(index, member, [pipe.outcome(result) for result in results], active, answers)
        return answers

    @staticmethod
    def _step(
        index: int, member: Steps, given: list[Any] | None, active: list[tuple[int, Steps, Requests]], answers: list[Any]
    ) -> None:
        try:
            active.append((index, member, member.send(given) if given is not None else next(member)))
        except StopIteration as stop:
            answers[index] = stop.value


def _capabilities(url: Url, options: Options) -> LockCapabilities:
    Ensemble.of(url, options)
    bound = free_after(options.session_ttl, options.tick)
    return LockCapabilities(
        scope=Scope.NETWORK,
        expiry=Expiry.SESSION,
        survives=Survives.NODE,
        fencing=Support.NATIVE,
        fencing_survives=Survives.NODE,
        order=WaitOrder.FIFO,
        wake=WakeUp.NOTIFIED,
        shared=Support.NATIVE,
        semaphore=Support.NATIVE,
        holders=Support.NATIVE,
        evict=Support.NATIVE,
        loss=WakeUp.NOTIFIED,
        ttl_min=bound,
        margin=options.tick + PREFETCHED_LOOK,
        expiry_lag=2 * options.tick + 0.5,
        dead_waiter_bound=max(bound, PATIENCE) + 2.0,
    )


def _open(url: Url, options: Options, context: Context) -> LockProvider:
    ensemble = Ensemble.of(url, options)
    try:
        return ZooKeeperLocks(ensemble, context, _capabilities(url, options))
    except (OSError, RuntimeError) as error:  # no descriptor, no thread
        from narrowboat_zookeeper import errors  # with the client library, which importing the backend must not load

        raise errors.no_room(ensemble, error) from error


def _prepare(url: Url, options: Options) -> Url:
    import kazoo.exceptions  # noqa: F401  # which importing the backend must not

    import narrowboat_zookeeper.errors
    import narrowboat_zookeeper.session  # noqa: F401  # what `open` imports, and too late once the main thread has ended

    return url


locks = LockBackend(
    scheme=SCHEME,
    summary="between machines, kept by a quorum, for what must not go wrong when a server does",
    options=Options,
    capabilities=_capabilities,
    open=_open,
    prepare=_prepare,
    extra="zookeeper",
    example="zookeeper://a:2181,b:2181,c:2181/shop",
)
