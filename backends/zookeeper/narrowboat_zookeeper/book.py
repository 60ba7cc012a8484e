"""What a provider knows: who stands where, in which session, and what kazoo's thread and the keeper's have to tell.

One dictionary step at a time and no mutex: an interrupt may strike between any two steps, and kazoo's thread must not wait.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

from narrowboat.contract.backend import Context
from narrowboat.contract.locks import Request
from narrowboat.errors import NarrowboatError, Reason
from narrowboat_zookeeper import names
from narrowboat_zookeeper.keeper import Keeper
from narrowboat_zookeeper.options import Site
from narrowboat_zookeeper.place import Place, ours

#: Seconds for which a waiter that was woken may take to come, before it loses its place.
PATIENCE = 5.0
#: Seconds for which a look that was sent before a waiter is woken still serves it; the margin allows for them.
GLANCE = 0.1
#: Seconds after a grant within which its node is watched, and between two looks of the keeper, at most: with it a holder
#: knows of an eviction within the claimed bound from the first moment on.
WATCHED = 0.3
#: Nodes that are remembered, of each kind.
_KNOWN_MAX = 20_000

#: Requests to be sent: a method of `Pipe` and its arguments; what comes back: a value or the server's error for each.
Requests = list[tuple[Any, ...]]
#: One member of a call: yields requests, is sent their results, returns its answer.
Steps = Generator[Requests, list[Any], Any]


class Book:
    """See the module's text. Opens the session."""

    def __init__(self, site: Site, context: Context) -> None:
        from kazoo import exceptions  # imported by who opens a provider, and no earlier

        from narrowboat_zookeeper import errors
        from narrowboat_zookeeper.session import Pipe, Session

        self.pipe = Pipe
        self.said = exceptions
        self._errors = errors
        self.site = site
        self.clock = context.clock
        self.timeout = context.timeout
        self.namespace = names.namespace(site.base, site.options.prefix)
        self.places: dict[str, Place] = {}  #: by owner
        self.mine: dict[str, Place] = {}  #: those that were granted, by path
        self.behind: dict[str, dict[str, None]] = {}  #: the owners of waiters, by the path that they watch
        self.known: dict[str, None] = {}  #: nodes of locks that are most likely there
        self.vouched: dict[str, None] = {}  #: contenders that were read and are ours: a path is used once and never again
        self.glancing = True  #: whether a look is sent before a waiter is woken
        self._doubt = context.doubt
        self.session = Session(site, context.timeout, self._connected, partial(self._doubt, None))
        self.keeper = Keeper(self._look, every=min(WATCHED, max(0.1, site.options.session_ttl / 8)))
        context.watch(self.keeper.look_now)

    def leave(self, requests: Sequence[Request]) -> None:
        """The attempt has ended, however."""
        for request in requests:
            place = self.places.get(request.owner)
            if place is not None:
                place.under_way = False
        self.keeper.stir()

    def enter(self, requests: Sequence[Request]) -> None:
        """From here to the end of the attempt the keeper leaves these places alone.

        Without a mutex: this sets `under_way` and then looks at `expelled`, the keeper the other way round, so one of the
        two sees the other.
        """
        for request in requests:
            place = self.places.get(request.owner)
            if place is not None:
                place.under_way, place.told = True, None

    def queue(self, directory: str, listed: Any) -> Steps:
        """The contenders, oldest first. Where their numbers leave that open, by the zxids of their creation."""
        queue = names.queue(listing(listed))
        if len(queue) < 2 or not names.ambiguous(queue):
            return queue
        results = yield [(self.pipe.get, f"{directory}/{each.node}") for each in queue]
        there = [(result[1].czxid, each) for each, result in zip(queue, results, strict=True) if isinstance(result, tuple)]
        return [each for _, each in sorted(there, key=itemgetter(0))]

    def directory(self, name: str) -> str:
        """The node of the lock `name`."""
        return f"{self.namespace}/{names.lock_node(name)}"

    def remember(self, directory: str) -> None:
        """It is there."""
        _keep(self.known, directory)

    def foreign(self, path: str, found: tuple[Any, Any]) -> bool:
        """Whether the contender at `path`, read as `found`, was not made by Narrowboat."""
        if ours(found, path.split("/")[-2]) is None:
            return True
        _keep(self.vouched, path)
        return False

    def failed(self, result: Any) -> bool:
        """Whether the server refused it; that there is no such node is an answer, not a failure."""
        return isinstance(result, Exception) and not isinstance(result, self.said.NoNodeError)

    def missing(self) -> NarrowboatError:
        """The error for a path of the URL that is not there."""
        return self._errors.missing(self.site)

    def refused(self, result: Any, *, doing: str) -> NarrowboatError:
        """The error for a result that is one."""
        return self._errors.refused(self.site, result, doing=doing)

    def owned(self, owner: str, directory: str, listed: Any) -> list[str]:
        """The paths of the owner's nodes, of whatever session."""
        return [f"{directory}/{each.node}" for each in names.queue(listing(listed)) if each.owner == owner]

    def forget_wake(self, owner: str, place: Place) -> None:
        """It waits no longer for what it watched."""
        behind, place.behind = place.behind, None
        if behind is not None:
            wakes = self.behind.get(behind[0])
            if wakes is not None:
                wakes.pop(owner, None)
                if not wakes:
                    self.behind.pop(behind[0], None)

    def drop(self, owner: str, place: Place) -> None:
        """Nothing of it is there any more."""
        if place.path is not None:
            self.mine.pop(place.path, None)
        self.places.pop(owner, None)

    # -- on kazoo's thread: nothing here may wait -----------------------------------------------------------------

    def ahead_changed(self, event: Any) -> None:
        """Something became of what a waiter watches. It is woken with the look that it will ask for, so it need not wait."""
        client = self.session.client
        for owner in list(self.behind.pop(event.path, ())):
            place = self.places.get(owner)
            if place is None:
                continue
            place.told = time.monotonic()
            path = place.path
            if path is None or not self.glancing:
                place.wake()
                continue
            directory = path.rpartition("/")[0]
            sent, synced, listed = self.clock(), client.sync_async(directory), client.get_children_async(directory)
            place.glance = (sent, synced, listed)
            listed.rawlink(lambda result, place=place: place.wake())

    def own_changed(self, event: Any) -> None:
        """Something became of a node of ours: an eviction changes it before it deletes it, anybody else just deletes it.

        A change alone says nothing: whoever sets its data makes one, and so does this program for its permits. A watch tells
        once, so the renewal that the doubt brings about looks whether it is there, and watches it again.
        """
        place = self.mine.get(event.path)
        if place is None or event.type not in ("CHANGED", "DELETED"):
            return
        place.armed = -1
        if event.type == "CHANGED":
            place.written = True
        else:
            place.vanished()
        self._suspect(event.path)

    def _suspect(self, path: str) -> None:
        contender = names.contender(path.rpartition("/")[2])
        if contender is not None:
            self._doubt(contender.owner)

    def _connected(self) -> None:
        """There is a connection again; the watches have ended with the one before, so every waiter looks again."""
        self.behind = {}
        for place in list(self.places.values()):
            if not place.granted:
                place.told = time.monotonic()
                place.wake()

    # -- on the keeper's thread -----------------------------------------------------------------------------------

    def _arm(self, client: Any, place: Place, path: str) -> None:
        """Watch our own node: sent, and not waited for. Not with the grant: most locks are released before it would serve."""
        place.armed = self.session.epoch

        def answered(result: Any) -> None:
            if isinstance(result.exception, self.said.NoNodeError):
                place.vanished()
                self._suspect(path)

        client.get_async(path, watch=self.own_changed).rawlink(answered)

    def _look(self) -> bool:
        """On the keeper's thread: send away what is over. Whether there is anything left that may be over one day."""
        if self.session.up:
            self.session.bell.hold()
            try:
                self._send_away()
            finally:
                self.session.bell.let_go()
        return bool(self.places)

    def _send_away(self) -> None:
        now, there = self.clock(), time.monotonic()
        client = self.session.client
        for place in list(self.places.values()):
            path = place.path
            if place.granted and path is not None and place.armed != self.session.epoch:
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
        for path in self.keeper.due():
            self.known.pop(path, None)
            client.delete_async(path)

    def _removed(self, place: Place, path: str, result: Any) -> None:
        """On kazoo's thread: what was sent away is gone, unless it was not."""
        if place.path == path and (result.exception is None or isinstance(result.exception, self.said.NoNodeError)):
            self.mine.pop(path, None)
            place.path = None

    def sweep(self, paths: list[str]) -> None:
        """At the end: what may be empty now, and the namespace if that is.

        A namespace of one user's own stays: were it gone, it would belong to whoever comes next, and shut this user out.
        """
        pipe = self.session.pipe(time.monotonic() + self.timeout / 4)
        for path in paths if self.session.owned else [*paths, self.namespace]:
            pipe.delete(path)
        pipe.wait()


def listing(listed: Any) -> Sequence[str]:
    """The children; none where there is no such node, or no right to look."""
    return () if isinstance(listed, Exception) else [each for each in listed if each is not None]


def _keep(known: dict[str, None], path: str) -> None:
    if path not in known:
        if len(known) >= _KNOWN_MAX:
            known.clear()
        known[path] = None
