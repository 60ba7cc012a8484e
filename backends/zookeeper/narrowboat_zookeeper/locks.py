"""Locks in ZooKeeper: ephemeral sequential nodes under the lock's node, each waiter watching the one before it.

What a call sends it sends at once, for all its members, and waits once: an uncontended acquire is one wait (create and
list), a release one (delete). What was created is known by its owner's id in the name, so a create whose answer was lost
is found again. The session is the lease: kept by one `sync` for all that it carries.

It trusts the holder's own clock, not the client library: validity counts from the last request that the leader has
acknowledged, and a session that is gone takes every grant with it, whoever reconnects.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

from narrowboat._queueing import conflict
from narrowboat.capabilities import (
    Concurrency,
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
from narrowboat.errors import ConfigurationError, Conflict, LeaseLost, NarrowboatError, Reason, Unavailable
from narrowboat_zookeeper import names
from narrowboat_zookeeper.keeper import Keeper
from narrowboat_zookeeper.options import SCHEME, Options, Site, free_after
from narrowboat_zookeeper.place import Place, Verdict, decide, read, record

#: Seconds after which a waiter looks again although no watch told it to.
LOOK_AGAIN = 5.0
#: Seconds for which a waiter that was woken may take to come, before it loses its place.
PATIENCE = 5.0
#: Seconds for which a look that was sent before a waiter is woken still serves it; the margin allows for them.
GLANCE = 0.1
#: Looks in one attempt while what is to be watched vanishes each time.
_ROUNDS = 6
#: Lock nodes that are remembered as there.
_KNOWN_MAX = 20_000

#: Requests to be sent: a method of `Pipe` and its arguments; what comes back: a value or the server's error for each.
Requests = list[tuple[Any, ...]]
Steps = Generator[Requests, list[Any], Any]


class ZooKeeperLocks(LockProvider):
    """One session; see the module's text."""

    def __init__(self, site: Site, context: Context, capabilities: LockCapabilities) -> None:
        from kazoo import exceptions

        from narrowboat_zookeeper import errors
        from narrowboat_zookeeper.session import Pipe, Session

        self._pipe = Pipe
        self._said = exceptions
        self._errors = errors
        self.capabilities = capabilities
        self._site = site
        self._clock = context.clock
        self._timeout = context.timeout
        self._namespace = names.namespace(site.base, site.options.prefix)
        self._places: dict[str, Place] = {}
        self._mine: dict[str, Place] = {}  # granted, by path
        self._behind: dict[str, dict[str, None]] = {}  # the owners of waiters, by what they watch
        self._glancing = True
        self._known: dict[str, None] = {}
        self._session = Session(site, context.timeout, self._connected)
        self._keeper = Keeper(self._look, every=min(1.0, max(0.1, site.options.session_ttl / 8)))
        context.watch(self._keeper.look_now)

    # -- the contract ---------------------------------------------------------------------------------------------

    def attempt(self, requests: Sequence[Request]) -> list[Grant | Busy | NarrowboatError]:
        """Take or queue, the whole batch in as few waits as its slowest member needs."""
        now = self._clock()
        self._enter(requests)
        try:
            return self._run([self._take(request, now) for request in requests])
        finally:
            for request in requests:
                place = self._places.get(request.owner)
                if place is not None:
                    place.under_way = False
            self._keeper.stir()

    def renew(self, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        """One `sync` for all. A node that was deleted is known by its watch, or asked for where there is none yet."""
        now = self._clock()
        ends = now + self._session.ttl
        return self._run([self._keep(grant, now, ends) for grant in grants])

    def release(self, grants: Sequence[Grant]) -> list[Released | NarrowboatError]:
        """Delete each node. Its path was never used before and is never used again."""
        return self._run([self._free(grant) for grant in grants])

    def withdraw(self, requests: Sequence[Request]) -> list[NarrowboatError | None]:
        """Delete whatever bears the owner's id. What was sent before in this session has taken effect before."""
        return self._run([self._withdraw(request) for request in requests])

    def holders(self, name: str | None) -> list[Holder]:
        """From the children of the lock's node, or of all, and their data."""
        found: list[Holder] | NarrowboatError = self._run([self._holders(name)])[0]
        if isinstance(found, NarrowboatError):
            raise found
        return found

    def evict(self, name: str, token: int) -> bool:
        """Delete that generation's node; the change before it tells its holder that it was no accident."""
        done: bool | NarrowboatError = self._run([self._evict(name, token)])[0]
        if isinstance(done, NarrowboatError):
            raise done
        return done

    def ping(self) -> None:
        """A `sync`: to the leader and back."""
        failed: NarrowboatError | None = self._run([self._ping()])[0]
        if failed is not None:
            raise failed

    def close(self) -> None:
        """End the session, and with it whatever it still carries; remove what it leaves empty."""
        ends = time.monotonic() + self._timeout
        self._keeper.close(self._timeout / 4)
        rest = self._keeper.rest()
        if rest and self._session.id is not None:
            try:
                self._sweep(rest[:1000])
            except NarrowboatError:
                pass  # others sweep as well, or it stays: an empty node
        self._session.close(max(0.1, ends - time.monotonic()))

    # -- exchanges ------------------------------------------------------------------------------------------------

    def _run(self, members: Sequence[Steps]) -> list[Any]:
        """Let each member take its steps: in each round all their requests are sent at once, and waited for once."""
        ends = time.monotonic() + self._timeout
        answers: list[Any] = [None] * len(members)
        active: list[tuple[int, Steps, Requests]] = []
        for index, member in enumerate(members):
            self._step(index, member, None, active, answers)
        self._session.check_open()
        while active:
            pipe = self._session.pipe(ends)
            bell = self._session.bell
            bell.hold()
            try:
                sent = [[request[0](pipe, *request[1:]) for request in requests] for _, _, requests in active]
            finally:
                bell.let_go()
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

    # -- taking ---------------------------------------------------------------------------------------------------

    def _take(self, request: Request, now: float) -> Steps:
        pipe = self._pipe
        ends = now + self._session.ttl
        directory = self._directory(request.name)
        place = self._places.get(request.owner)
        listed: Any = None
        if place is not None:
            place.wake = request.wake
            if place.expelled and place.path is not None:
                yield [(pipe.delete, place.path)]
                place.lost()
            glance, place.glance = place.glance, None
            looking: Requests = [(pipe.sync,), (pipe.children, directory)]
            fresh = glance is not None and now - glance[0] < GLANCE
            self._glancing = self._glancing and (fresh or glance is None)  # on a slow network it only delays
            if glance is not None and fresh:
                looking = [(pipe.sent, glance[1]), (pipe.sent, glance[2])]
            elif place.behind == (directory, self._session.epoch):  # at the front: look and watch in one
                self._behind.setdefault(directory, {})[request.owner] = None
                looking[1] = (pipe.children, directory, self._ahead_changed)
            listed = (yield looking)[1]
            if place.path is None or place.session != self._session.id:
                place.lost()
                yield from self._search(request.owner, place, directory, listed)
            if place.path is None:
                listed = None
        if not request.wait and (place is None or place.path is None):
            listed = (yield [(pipe.sync,), (pipe.children, directory)])[1]
            refusal = self._refusal(request, listed)
            if refusal is not None:
                self._places.pop(request.owner, None)
                return refusal
            listed = None
        if place is None:
            place = Place(request.wake)
            place.under_way = True
            self._places[request.owner] = place  # before anything is sent: it may be there from now on
        for _ in range(_ROUNDS):
            if place.path is None:
                error = yield from self._create(request, place, directory)
                if isinstance(error, NarrowboatError):
                    self._places.pop(request.owner, None)
                    return error
                listed = error
            elif listed is None:
                listed = (yield [(pipe.children, directory)])[0]
            answer = yield from self._stand(request, place, directory, listed, ends)
            if answer is not None:
                return answer
            listed = None
        if request.wait:
            return Busy(0.05)
        return (yield from self._leave(request, place, directory))

    def _create(self, request: Request, place: Place, directory: str) -> Steps:
        """The listing that follows the owner's new node, or why there is none."""
        pipe = self._pipe
        path = f"{directory}/{names.stem(request.mode, request.limit, request.owner)}"
        create = [(pipe.create, path, record(request, granted=False)), (pipe.children, directory)]
        before: Requests = [] if directory in self._known else [(pipe.make, directory)]
        for _ in range(_ROUNDS):
            *made, created, listed = yield [*before, *create]
            if isinstance(created, tuple):
                place.found(*created)
                self._remember(directory)
                return listed
            if made and isinstance(made[0], self._said.NoAuthError):
                created = made[0]
            if not isinstance(created, self._said.NoNodeError):
                return self._errors.refused(self._site, created, doing=f"taking the lock {request.name!r}")
            refusal = yield from self._parents()
            if refusal is not None:
                return refusal
            before = [(pipe.make, directory)]
        return Unavailable(
            f"the node {directory} on {self._site} is deleted again and again while the lock {request.name!r} is taken. "
            "Look for who deletes it; the call may be repeated.",
            backend=self._site.scheme,
        )

    def _parents(self) -> Steps:
        """Make the nodes above all locks; the chroot only if that was asked for."""
        base = self._site.base
        paths = [f"{base}/{names.ROOT}", self._namespace]
        if base and self._site.options.create:
            parts = base[1:].split("/")
            paths = ["/" + "/".join(parts[: count + 1]) for count in range(len(parts))] + paths
        results = yield [(self._pipe.make, path) for path in paths]
        for path, result in zip(paths, results, strict=True):
            if not isinstance(result, Exception) or isinstance(result, self._said.NodeExistsError):
                continue
            if isinstance(result, self._said.NoNodeError) and base and not self._site.options.create:
                return ConfigurationError(
                    f"the path {base} of the URL does not exist on {','.join(self._site.hosts)}. Make it, or let it be made "
                    "with ?create=true.",
                    backend=self._site.scheme,
                )
            if not isinstance(result, self._said.NoAuthError):  # an existing parent need not let us create in it
                return self._errors.refused(self._site, result, doing=f"making {path}")
        return None

    def _search(self, owner: str, place: Place, directory: str, listed: Any) -> Steps:
        """Look among `listed` for a node of this owner and of this session, made by a request whose answer was lost."""
        paths = self._owned(owner, directory, listed)
        if paths:
            results = yield [(self._pipe.get, path) for path in paths]
            for path, result in zip(paths, results, strict=True):
                if isinstance(result, tuple) and result[1].ephemeralOwner == self._session.id:
                    place.found(path, result[1])

    def _stand(self, request: Request, place: Place, directory: str, listed: Any, ends: float) -> Steps:
        """What comes of standing in the queue that was `listed`; None: look again."""
        if isinstance(listed, Exception) and not isinstance(listed, self._said.NoNodeError):
            yield from self._leave(request, place, directory)
            return self._errors.refused(self._site, listed, doing=f"taking the lock {request.name!r}")
        queue = yield from self._queue(directory, listed)
        node = (place.path or "").rpartition("/")[2]
        index = next((index for index, each in enumerate(queue) if each.node == node), None)
        if index is None or place.session != self._session.id:
            place.lost()  # somebody deleted it, or the session ended: stand in line again
            return None
        decision = decide(request.mode, request.limit, queue[:index])
        if decision.verdict is Verdict.GO:
            return self._grant(request, place, ends, behind=len(queue) - index - 1)
        if decision.verdict is Verdict.CONFLICT and decision.other is not None:
            yield from self._leave(request, place, directory)
            return self._conflict(request, decision.other)
        if not request.wait:
            return (yield from self._leave(request, place, directory))
        other = decision.other
        watched = directory if other is None else f"{directory}/{other.node}"
        epoch = self._session.epoch
        if place.behind == (watched, epoch) and request.owner in self._behind.get(watched, ()):
            return Busy(LOOK_AGAIN)
        place.behind = (watched, epoch)
        self._behind.setdefault(watched, {})[request.owner] = None
        if other is None:
            result = (yield [(self._pipe.children, directory, self._ahead_changed)])[0]
            if {each.node for each in queue[:index]} <= set(self._listing(result)):
                return Busy(LOOK_AGAIN)
        else:
            result = (yield [(self._pipe.get, watched, self._ahead_changed)])[0]
            waits = isinstance(result, tuple)
            if waits and not (other.limit is not None and read(result[0], 0.0).granted):
                return Busy(LOOK_AGAIN)
            if isinstance(result, Exception) and not isinstance(result, self._said.NoNodeError):
                yield from self._leave(request, place, directory)
                return self._errors.refused(self._site, result, doing=f"waiting for the lock {request.name!r}")
        self._forget_wake(request.owner, place)
        return None

    def _queue(self, directory: str, listed: Any) -> Steps:
        """The contenders, oldest first. Where their numbers leave that open, by the zxids of their creation."""
        queue = names.queue(self._listing(listed))
        if len(queue) < 2 or not names.ambiguous(queue):
            return queue
        results = yield [(self._pipe.get, f"{directory}/{each.node}") for each in queue]
        there = [(result[1].czxid, each) for each, result in zip(queue, results, strict=True) if isinstance(result, tuple)]
        return [each for _, each in sorted(there, key=itemgetter(0))]

    def _grant(self, request: Request, place: Place, ends: float, *, behind: int) -> Grant:
        path = place.path or ""
        place.granted = True
        place.ends = ends
        self._forget_wake(request.owner, place)
        self._mine[path] = place
        if request.limit is not None and behind:
            self._session.client.set_async(path, record(request, granted=True))
        return Grant(request.name, request.owner, place.token, self._session.ttl, request.mode, request.limit)

    def _arm(self, client: Any, place: Place, path: str) -> None:
        """Watch our own node: sent, and not waited for. Not with the grant: most locks are released before it would serve."""
        place.armed = self._session.epoch

        def answered(result: Any) -> None:
            if isinstance(result.exception, self._said.NoNodeError):
                place.gone = place.gone or Reason.TAKEN

        client.get_async(path, watch=self._own_changed).rawlink(answered)

    def _leave(self, request: Request, place: Place, directory: str) -> Steps:
        """A try that lost a race takes its node with it."""
        self._forget_wake(request.owner, place)
        path = place.path
        if path is not None:
            result = (yield [(self._pipe.delete, path)])[0]
            if isinstance(result, Exception) and not isinstance(result, self._said.NoNodeError):
                return self._errors.refused(self._site, result, doing=f"leaving the lock {request.name!r}")
        self._places.pop(request.owner, None)
        self._keeper.note(directory)
        return Busy(LOOK_AGAIN)

    def _refusal(self, request: Request, listed: Any) -> Busy | NarrowboatError | None:
        """Why a try need not even begin."""
        if isinstance(listed, Exception) and not isinstance(listed, self._said.NoNodeError):
            return self._errors.refused(self._site, listed, doing=f"trying the lock {request.name!r}")
        decision = decide(request.mode, request.limit, names.queue(self._listing(listed)))
        if decision.verdict is Verdict.CONFLICT and decision.other is not None:
            return self._conflict(request, decision.other)
        return None if decision.verdict is Verdict.GO else Busy(LOOK_AGAIN)

    def _conflict(self, request: Request, other: names.Contender) -> Conflict:
        text = conflict(request.name, request.mode, request.limit, other.mode, other.limit)
        return Conflict(text, backend=self._site.scheme)

    # -- keeping and leaving --------------------------------------------------------------------------------------

    def _keep(self, grant: Grant, now: float, ends: float) -> Steps:
        place = self._places.get(grant.owner)
        path = place.path if place is not None else None
        if place is None or place.token != grant.token:
            return self._lost(grant, Reason.TAKEN)
        if path is None or place.gone in (Reason.EVICTED, Reason.EXPIRED):
            return self._lost(grant, place.gone or Reason.TAKEN)
        if now >= place.ends:
            return self._lost(grant, Reason.EXPIRED)
        armed = place.armed == self._session.epoch
        if armed:
            synced = (yield [(self._pipe.sync,)])[0]
        else:
            place.armed = self._session.epoch
            synced, own = yield [(self._pipe.sync,), (self._pipe.get, path, self._own_changed)]
            if isinstance(own, self._said.NoNodeError):
                place.gone = place.gone or Reason.TAKEN
        if place.session != self._session.id:
            return self._lost(grant, Reason.SESSION_ENDED)
        if place.gone is not None:
            return self._lost(grant, place.gone)
        if isinstance(synced, Exception):
            return self._errors.refused(self._site, synced, doing=f"renewing the lock {grant.name!r}")
        place.ends = ends
        return grant if grant.ttl == self._session.ttl else grant._replace(ttl=self._session.ttl)

    def _lost(self, grant: Grant, reason: Reason) -> LeaseLost:
        return LeaseLost(
            f"lock {grant.name!r}: the grant with token {grant.token} is over ({reason.value}). "
            "Stop what it protects; acquire again.",
            name=grant.name,
            reason=reason,
            token=grant.token,
            backend=self._site.scheme,
        )

    def _free(self, grant: Grant) -> Steps:
        place = self._places.get(grant.owner)
        directory = self._directory(grant.name)
        if place is not None and place.path is not None and place.token == grant.token:
            path: Any = place.path
        else:
            path = yield from self._generation(directory, grant.token, owner=grant.owner)
        if path is None or isinstance(path, NarrowboatError):
            return path or Released.NOT_HELD
        self._mine.pop(path, None)
        result = (yield [(self._pipe.delete, path)])[0]
        gone = isinstance(result, self._said.NoNodeError)
        if isinstance(result, Exception) and not gone:
            return self._errors.refused(self._site, result, doing=f"releasing the lock {grant.name!r}")
        self._places.pop(grant.owner, None)
        self._keeper.note(directory)
        return Released.NOT_HELD if gone else Released.RELEASED

    def _withdraw(self, request: Request) -> Steps:
        place = self._places.get(request.owner)
        directory = self._directory(request.name)
        if place is not None:
            self._forget_wake(request.owner, place)
        if place is not None and place.path is not None:
            paths = [place.path]
        else:
            listed = (yield [(self._pipe.sync,), (self._pipe.children, directory)])[1]
            if isinstance(listed, Exception) and not isinstance(listed, self._said.NoNodeError):
                return self._errors.refused(self._site, listed, doing=f"withdrawing from the lock {request.name!r}")
            paths = self._owned(request.owner, directory, listed)
        if paths:
            for path in paths:
                self._mine.pop(path, None)
            for result in (yield [(self._pipe.delete, path) for path in paths]):
                if isinstance(result, Exception) and not isinstance(result, self._said.NoNodeError):
                    return self._errors.refused(self._site, result, doing=f"withdrawing from the lock {request.name!r}")
            self._keeper.note(directory)
        self._places.pop(request.owner, None)
        return None

    # -- looking --------------------------------------------------------------------------------------------------

    def _holders(self, name: str | None) -> Steps:
        pipe = self._pipe
        if name is not None:
            directories = [names.lock_node(name)]
            listings = [(yield [(pipe.sync,), (pipe.children, self._directory(name))])[1]]
        else:
            directories = sorted(self._listing((yield [(pipe.sync,), (pipe.children, self._namespace)])[1]))
            listings = []
            if directories:
                listings = yield [(pipe.children, f"{self._namespace}/{each}") for each in directories]
        found: list[Holder] = []
        for directory, listed in zip(directories, listings, strict=True):
            if isinstance(listed, Exception) and not isinstance(listed, self._said.NoNodeError):
                return self._errors.refused(self._site, listed, doing="looking who holds a lock")
            queue = yield from self._queue(f"{self._namespace}/{directory}", listed)
            holding = _holding(queue)
            if not holding:
                continue
            results = yield [(pipe.get, f"{self._namespace}/{directory}/{each.node}") for each in holding]
            for each, result in zip(holding, results, strict=True):
                if isinstance(result, tuple):
                    said = read(result[0], result[1].ctime / 1000.0)
                    clear = name or names.lock_name(directory) or said.name or directory
                    waiters = len(queue) - len(holding)
                    found.append(Holder(clear, result[1].czxid, said.label, each.mode, each.limit, said.at, None, waiters))
        return sorted(found, key=lambda holder: (holder.name, holder.token))

    def _evict(self, name: str, token: int) -> Steps:
        path = yield from self._generation(self._directory(name), token)
        if path is None or isinstance(path, NarrowboatError):
            return path or False
        result = (yield [(self._pipe.break_, path, b"evicted")])[0]
        failed = result if isinstance(result, Exception) else next((e for e in result if isinstance(e, Exception)), None)
        if failed is None:
            self._keeper.note(self._directory(name))
            return True
        if isinstance(failed, (self._said.NoNodeError, self._said.RolledBackError)):
            return False
        return self._errors.refused(self._site, failed, doing=f"evicting the holder of the lock {name!r}")

    def _generation(self, directory: str, token: int, owner: str | None = None) -> Steps:
        """The path of the holder with that token; None when there is none; an error where we may not look."""
        listed = (yield [(self._pipe.sync,), (self._pipe.children, directory)])[1]
        if isinstance(listed, Exception) and not isinstance(listed, self._said.NoNodeError):
            return self._errors.refused(self._site, listed, doing="looking who holds a lock")
        queue = yield from self._queue(directory, listed)
        holding = [each for each in _holding(queue) if owner is None or each.owner == owner]
        if not holding:
            return None
        results = yield [(self._pipe.get, f"{directory}/{each.node}") for each in holding]
        for each, result in zip(holding, results, strict=True):
            if isinstance(result, tuple) and result[1].czxid == token:
                return f"{directory}/{each.node}"
        return None

    def _ping(self) -> Steps:
        result = (yield [(self._pipe.sync,)])[0]
        return self._errors.refused(self._site, result, doing="a ping") if isinstance(result, Exception) else None

    # -- on kazoo's thread: nothing here may wait -----------------------------------------------------------------

    def _ahead_changed(self, event: Any) -> None:
        """Something became of what a waiter watches. It is woken with the look that it will ask for, so it need not wait."""
        client = self._session.client
        for owner in list(self._behind.pop(event.path, ())):
            place = self._places.get(owner)
            if place is None:
                continue
            place.told = time.monotonic()
            path = place.path
            if path is None or not self._glancing:
                place.wake()
                continue
            directory = path.rpartition("/")[0]
            sent, synced, listed = self._clock(), client.sync_async(directory), client.get_children_async(directory)
            place.glance = (sent, synced, listed)
            listed.rawlink(lambda result, place=place: place.wake())

    def _own_changed(self, event: Any) -> None:
        """Something became of a node of ours: an eviction changes it before it deletes it, anybody else just deletes it."""
        place = self._mine.get(event.path)
        if place is not None and event.type in ("CHANGED", "DELETED"):
            place.gone = Reason.EVICTED if event.type == "CHANGED" else Reason.TAKEN

    def _connected(self) -> None:
        """There is a connection again; the watches have ended with the one before, so every waiter looks again."""
        self._behind = {}
        for place in list(self._places.values()):
            if not place.granted:
                place.told = time.monotonic()
                place.wake()

    # -- small things ---------------------------------------------------------------------------------------------

    def _directory(self, name: str) -> str:
        return f"{self._namespace}/{names.lock_node(name)}"

    def _remember(self, directory: str) -> None:
        if directory not in self._known:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            self._known[directory] = None

    def _listing(self, listed: Any) -> Iterable[str]:
        return () if isinstance(listed, Exception) else listed

    def _owned(self, owner: str, directory: str, listed: Any) -> list[str]:
        return [f"{directory}/{each.node}" for each in names.queue(self._listing(listed)) if each.owner == owner]

    def _forget_wake(self, owner: str, place: Place) -> None:
        behind, place.behind = place.behind, None
        if behind is not None:
            wakes = self._behind.get(behind[0])
            if wakes is not None:
                wakes.pop(owner, None)
                if not wakes:
                    self._behind.pop(behind[0], None)

    # -- in the background ----------------------------------------------------------------------------------------

    def _enter(self, requests: Sequence[Request]) -> None:
        """From here to the end of the attempt the keeper leaves these places alone.

        Without a mutex: this sets `under_way` and then looks at `expelled`, the keeper the other way round, so one of the
        two sees the other.
        """
        for request in requests:
            place = self._places.get(request.owner)
            if place is not None:
                place.under_way, place.told = True, None

    def _look(self) -> bool:
        """On the keeper's thread: send away what is over. Whether there is anything left that may be over one day."""
        now, there = self._clock(), time.monotonic()
        client = self._session.client
        if self._session.id is None:
            return bool(self._places)
        for place in list(self._places.values()):
            path = place.path
            if place.granted and path is not None and place.armed != self._session.epoch:
                self._arm(client, place, path)
            late = now >= place.ends if place.granted else place.told is not None and place.told + PATIENCE <= there
            if path is None or not (late or place.expelled):
                continue
            place.expelled = True
            if place.under_way:
                place.expelled = False
                continue
            if place.granted:
                place.gone = place.gone or Reason.EXPIRED
            client.delete_async(path).rawlink(partial(self._removed, place, path))
        for path in self._keeper.due():
            self._known.pop(path, None)
            client.delete_async(path)
        return bool(self._places)

    def _removed(self, place: Place, path: str, result: Any) -> None:
        """On kazoo's thread: what was sent away is gone, unless it was not."""
        if place.path == path and (result.exception is None or isinstance(result.exception, self._said.NoNodeError)):
            self._mine.pop(path, None)
            place.path = None

    def _sweep(self, paths: list[str]) -> None:
        """At the end: what may be empty now, and the namespace if that is."""
        pipe = self._session.pipe(time.monotonic() + self._timeout / 4)
        for path in [*paths, self._namespace]:
            pipe.delete(path)
        pipe.wait()


def _holding(queue: Sequence[names.Contender]) -> list[names.Contender]:
    """Those of a queue who hold."""
    return [each for index, each in enumerate(queue) if decide(each.mode, each.limit, queue[:index]).verdict is Verdict.GO]


def _capabilities(url: Url, options: Options) -> LockCapabilities:
    Site.of(url, options)
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
        concurrency=Concurrency.SERIAL,
        ttl_min=bound,
        margin=options.tick + GLANCE,
        expiry_lag=2 * options.tick + 0.5,
        dead_waiter_bound=max(bound, PATIENCE) + 2.0,
    )


def _open(url: Url, options: Options, context: Context) -> LockProvider:
    return ZooKeeperLocks(Site.of(url, options), context, _capabilities(url, options))


locks = LockBackend(
    scheme=SCHEME,
    summary="between machines, kept by a quorum, for what must not go wrong when a server does",
    options=Options,
    capabilities=_capabilities,
    open=_open,
    extra="zookeeper",
    example="zookeeper://a:2181,b:2181,c:2181/shop",
)
