"""The shared state of a provider: its session, its owners' nodes, their watches, and what kazoo's thread reports of them.

Callers, kazoo's thread and the janitor use it at the same time. Each dictionary is changed in single steps, which are atomic in
the interpreter. Only the state of one node has parts that belong together, and a mutex guards it (`QueueNode`). Nothing here
waits while it runs on kazoo's thread.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

from narrowboat.contract.backend import Context
from narrowboat.contract.locks import Request
from narrowboat.errors import NarrowboatError
from narrowboat_zookeeper import names
from narrowboat_zookeeper.janitor import Janitor
from narrowboat_zookeeper.options import Ensemble
from narrowboat_zookeeper.queue_node import Look, QueueNode
from narrowboat_zookeeper.records import ours

#: Seconds for which a prefetched look may serve the waiter that it was sent for. The margin of a lease allows for them.
PREFETCHED_LOOK = 0.1
#: Seconds between two looks of the janitor, and from a grant to the watch of its node. Longer breaks `wake_bound`: the holder
#: learns of an eviction too late.
WATCHED = 0.3
#: The number of nodes that are remembered, of each kind.
_KNOWN_MAX = 20_000

#: Requests to send: a method of `Pipe` and its arguments. Each is answered with a value or the server's error.
Requests = list[tuple[Any, ...]]
#: One member of a call: yields requests, is sent their results, returns its answer.
Steps = Generator[Requests, list[Any], Any]


class ProviderState:
    """See the module's text. Opens the session."""

    def __init__(self, ensemble: Ensemble, context: Context) -> None:
        from kazoo import exceptions  # imported by who opens a provider, and no earlier

        from narrowboat_zookeeper import errors
        from narrowboat_zookeeper.session import Pipe, Session

        self.pipe = Pipe
        self.kazoo_errors = exceptions
        self._errors = errors
        self.ensemble = ensemble
        self.clock = context.clock
        self.timeout = context.timeout
        self.namespace = names.namespace(ensemble.base, ensemble.options.prefix)
        self.nodes: dict[str, QueueNode] = {}  #: by owner
        self.held: dict[str, QueueNode] = {}  #: those that were granted, by path
        self.watchers: dict[str, dict[str, None]] = {}  #: the owners of waiters, by the path that they watch
        self.known: dict[str, None] = {}  #: nodes of locks that most likely exist
        self.vouched: dict[str, None] = {}  #: contenders that were read and are ours: a path is used once and never again
        self.prefetching = True  #: whether a look is sent before a waiter is woken
        self._doubt = context.doubt
        self.session = Session(ensemble, context.timeout, self._connected, partial(self._doubt, None))
        self.janitor = Janitor(self._look, every=min(WATCHED, max(0.1, ensemble.options.session_ttl / 8)))
        context.watch(self.janitor.look_now)

    def enter(self, requests: Sequence[Request]) -> None:
        """Begin an attempt of these owners. Until `leave` the janitor does not touch their nodes."""
        for request in requests:
            node = self.nodes.get(request.owner)
            if node is not None:
                node.enter(request.wake)

    def leave(self, requests: Sequence[Request]) -> None:
        """End the attempt, whatever its outcome."""
        for request in requests:
            node = self.nodes.get(request.owner)
            if node is not None:
                node.leave()
        self.janitor.stir()

    def queue(self, directory: str, listed: Any) -> Steps:
        """The contenders, oldest first. If their numbers do not determine the order, the zxids of their creation do."""
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
        """Remember that the lock's node exists."""
        _keep(self.known, directory)

    def foreign(self, path: str, found: tuple[Any, Any]) -> bool:
        """Whether the contender at `path`, read as `found`, was not made by Narrowboat."""
        if ours(found, path.split("/")[-2]) is None:
            return True
        _keep(self.vouched, path)
        return False

    def failed(self, result: Any) -> bool:
        """Whether the server refused the request. A missing node is an answer, not a failure."""
        return isinstance(result, Exception) and not isinstance(result, self.kazoo_errors.NoNodeError)

    def missing(self) -> NarrowboatError:
        """The error for a path of the URL that does not exist."""
        return self._errors.missing(self.ensemble)

    def refused(self, result: Any, *, doing: str) -> NarrowboatError:
        """The error to tell, for a result that is a server's error."""
        return self._errors.refused(self.ensemble, result, doing=doing)

    def owned(self, owner: str, directory: str, listed: Any) -> list[str]:
        """The paths of the owner's nodes, of any session."""
        return [f"{directory}/{each.node}" for each in names.queue(listing(listed)) if each.owner == owner]

    def watch(self, owner: str, node: QueueNode, path: str) -> None:
        """Wake the owner at the next change of `path`."""
        node.watch((path, self.session.epoch))
        self.watchers.setdefault(path, {})[owner] = None

    def watches(self, owner: str, node: QueueNode, path: str) -> bool:
        """Whether a change of `path` will wake the owner."""
        return node.watching == (path, self.session.epoch) and owner in self.watchers.get(path, ())

    def watch_no_more(self, owner: str, node: QueueNode) -> None:
        """Stop waking the owner."""
        watching = node.watch(None)
        if watching is not None:
            watchers = self.watchers.get(watching[0])
            if watchers is not None:
                watchers.pop(owner, None)
                if not watchers:
                    self.watchers.pop(watching[0], None)

    def drop(self, owner: str, node: QueueNode) -> None:
        """Forget a node that is gone."""
        if node.path is not None:
            self.held.pop(node.path, None)
        self.nodes.pop(owner, None)

    # -- on kazoo's thread: nothing here may wait -----------------------------------------------------------------

    def ahead_changed(self, event: Any) -> None:
        """The node that a waiter watches has changed. Prefetch the waiter's next look and wake it, so that it need not wait."""
        client = self.session.client
        for owner in list(self.watchers.pop(event.path, ())):
            node = self.nodes.get(owner)
            if node is None:
                continue
            path = node.path
            if path is None or not self.prefetching:
                node.woken(time.monotonic())
                node.wake()
                continue
            directory = path.rpartition("/")[0]
            look = Look(self.clock(), client.sync_async(directory), client.get_children_async(directory))
            node.woken(time.monotonic(), look)
            look.listed.rawlink(lambda result, node=node: node.wake())

    def own_changed(self, event: Any) -> None:
        """One of our nodes has changed. An eviction changes a node before it deletes it; another program just deletes it.

        A change alone says nothing: any write of its data makes one, and this program writes the data of its permits. A watch
        fires once. So the renewal that follows the doubt looks whether the node is there, and watches it again.
        """
        node = self.held.get(event.path)
        if node is None or event.type not in ("CHANGED", "DELETED"):
            return
        if event.type == "CHANGED":
            node.changed()
        else:
            node.vanished()
        self._suspect(event.path)

    def _suspect(self, path: str) -> None:
        contender = names.contender(path.rpartition("/")[2])
        if contender is not None:
            self._doubt(contender.owner)

    def _connected(self) -> None:
        """There is a connection again. The watches ended with the one before, so wake every waiter."""
        self.watchers = {}
        for node in list(self.nodes.values()):
            if not node.granted:
                node.woken(time.monotonic())
                node.wake()

    # -- on the janitor's thread ----------------------------------------------------------------------------------

    def _watch_own(self, client: Any, node: QueueNode, path: str) -> None:
        """Send a watch of our own node, without waiting. It does not go with the grant: most locks are released before."""
        node.own_watch_sent(self.session.epoch)

        def answered(result: Any) -> None:
            if isinstance(result.exception, self.kazoo_errors.NoNodeError):
                node.vanished()
                self._suspect(path)

        client.get_async(path, watch=self.own_changed).rawlink(answered)

    def _look(self) -> bool:
        """Watch the held nodes, and expel those that are over. Returns whether any node is left to look after."""
        if self.session.up:
            with self.session.wakeup.held():
                self._send_away()
        return bool(self.nodes)

    def _send_away(self) -> None:
        now, monotonic = self.clock(), time.monotonic()
        client = self.session.client
        for node in list(self.nodes.values()):
            path = node.path
            if node.granted and path is not None and node.watched_in != self.session.epoch:
                self._watch_own(client, node, path)
            over = node.expel(now, monotonic)
            if over is not None:
                client.delete_async(over).rawlink(partial(self._removed, node, over))
        for path in self.janitor.due():
            self.known.pop(path, None)
            client.delete_async(path)

    def _removed(self, node: QueueNode, path: str, result: Any) -> None:
        """On kazoo's thread: an expelled node is gone, unless the server refused its deletion."""
        if result.exception is None or isinstance(result.exception, self.kazoo_errors.NoNodeError):
            self.held.pop(path, None)
            node.removed(path)

    def sweep(self, paths: list[str]) -> None:
        """At the end: remove nodes that may be empty now, and the namespace if it is empty.

        A namespace that belongs to one user stays. Otherwise the next user could make it, and shut this user out.
        """
        pipe = self.session.pipe(time.monotonic() + self.timeout / 4)
        for path in paths if self.session.owned else [*paths, self.namespace]:
            pipe.delete(path)
        pipe.wait()


def listing(listed: Any) -> Sequence[str]:
    """The children of a node; none where there is no such node, or no right to look."""
    return () if isinstance(listed, Exception) else [each for each in listed if each is not None]


def _keep(known: dict[str, None], path: str) -> None:
    if path not in known:
        if len(known) >= _KNOWN_MAX:
            known.clear()
        known[path] = None
