"""The steps of an attempt: join the queue, read the contenders ahead, and go or watch one of them.

Each function is one member's part of an exchange (`Steps`): it yields requests, and is sent their results.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from narrowboat.contract.locks import Busy, Grant, Request
from narrowboat.driver.admission import conflict
from narrowboat.driver.texts import cut
from narrowboat.errors import Conflict, NarrowboatError, Unavailable
from narrowboat_zookeeper import names
from narrowboat_zookeeper.decision import Verdict, decide
from narrowboat_zookeeper.provider_state import PREFETCHED_LOOK, ProviderState, Requests, Steps, listing
from narrowboat_zookeeper.queue_node import QueueNode
from narrowboat_zookeeper.records import read, record

#: Seconds after which a waiter looks again although no watch has fired.
LOOK_AGAIN = 5.0
#: Looks in one attempt, if the node to be watched vanishes each time.
_ROUNDS = 6


def take(state: ProviderState, request: Request, now: float) -> Steps:
    """One request of an attempt that began at `now`."""
    pipe = state.pipe
    directory = state.directory(request.name)
    node = state.nodes.get(request.owner)
    listed: Any = None
    if node is not None:
        listed = yield from _again(state, request, node, directory, now)
        if isinstance(listed, NarrowboatError):
            return listed
    if not request.wait and (node is None or node.path is None):
        listed = (yield [(pipe.sync,), (pipe.children, directory)])[1]
        refusal = yield from _refusal(state, request, directory, listed)
        if refusal is not None:
            state.nodes.pop(request.owner, None)
            return refusal
        listed = None
    if node is None:
        node = QueueNode(request.wake)
        state.nodes[request.owner] = node  # before anything is sent: it may be there from now on
    for _ in range(_ROUNDS):
        if node.path is None:
            error = yield from _create(state, request, node, directory)
            if isinstance(error, NarrowboatError):
                state.nodes.pop(request.owner, None)
                return error
            listed = error
        elif listed is None:
            listed = (yield [(pipe.children, directory)])[0]
        answer = yield from _stand(state, request, node, directory, listed, now)
        if answer is not None:
            return answer
        listed = None
    if request.wait:
        return Busy(0.05)
    return (yield from _leave(state, request, node, directory))


def _again(state: ProviderState, request: Request, node: QueueNode, directory: str, now: float) -> Steps:
    """The listing for an owner that has a node already; None if that node is gone."""
    pipe = state.pipe
    if node.expelled and node.path is not None:
        yield [(pipe.delete, node.path)]
        node.lost()
    looking: Requests = [(pipe.sync,), (pipe.children, directory)]
    look = node.take_prefetched()
    if look is not None and now - look.sent < PREFETCHED_LOOK:
        if look.listed.exception is None:
            looking = [(pipe.sent, look.synced), (pipe.sent, look.listed)]
    elif look is not None:
        state.prefetching = False  # on a slow network it only delays
    elif node.watching == (directory, state.session.epoch):  # at the front: look and watch in one
        state.watch(request.owner, node, directory)
        looking[1] = (pipe.children, directory, state.ahead_changed)
    synced, listed = yield looking
    if isinstance(synced, Exception):
        return state.refused(synced, doing=f"waiting for the lock {request.name!r}")
    if node.path is None or node.session != state.session.id:
        if node.path is not None:
            state.held.pop(node.path, None)
        node.lost()
        yield from _search(state, request.owner, node, directory, listed)
    return listed if node.path is not None else None


def _create(state: ProviderState, request: Request, node: QueueNode, directory: str) -> Steps:
    """Make the owner's node. Returns the listing that follows it, or the error."""
    pipe = state.pipe
    path = f"{directory}/{names.stem(request.mode, request.limit, request.owner)}"
    create = [(pipe.create, path, record(request, granted=False)), (pipe.children, directory)]
    before: Requests = [] if directory in state.known else [(pipe.make, directory)]
    for _ in range(_ROUNDS):
        *made, created, listed = yield [*before, *create]
        if isinstance(created, tuple) and created[0] is not None:
            node.found(*created)
            state.remember(directory)
            return listed
        if made and isinstance(made[0], state.kazoo_errors.NoAuthError):
            created = made[0]
        if not isinstance(created, state.kazoo_errors.NoNodeError):
            return state.refused(created, doing=f"taking the lock {request.name!r}")
        refusal = yield from _parents(state)
        if refusal is not None:
            return refusal
        before = [(pipe.make, directory)]
    return Unavailable(
        f"the node {directory} on {state.ensemble} is deleted again and again while the lock {request.name!r} is taken. "
        "Look for who deletes it; the call may be repeated.",
        backend=state.ensemble.scheme,
    )


def _parents(state: ProviderState) -> Steps:
    """Make the nodes above all locks, and the chroot only with `create=true`."""
    base, root = state.ensemble.base, f"{state.ensemble.base}/{names.ROOT}"
    paths = [root, state.namespace]
    if base and state.ensemble.options.create:
        parts = base[1:].split("/")
        paths = ["/" + "/".join(parts[: count + 1]) for count in range(len(parts))] + paths
    results = yield [(state.pipe.make, path, path == root) for path in paths]
    for path, result in zip(paths, results, strict=True):
        if not isinstance(result, Exception) or isinstance(result, state.kazoo_errors.NodeExistsError):
            continue
        if isinstance(result, state.kazoo_errors.NoNodeError) and base and not state.ensemble.options.create:
            return state.missing()
        if isinstance(
            result, state.kazoo_errors.NoAuthError
        ):  # an existing parent need not let us create in it; a missing one must
            there = (yield [(state.pipe.get, path)])[0]
            if not isinstance(there, state.kazoo_errors.NoNodeError):
                continue
        return state.refused(result, doing=f"making {path}")
    return None


def _search(state: ProviderState, owner: str, node: QueueNode, directory: str, listed: Any) -> Steps:
    """Look among `listed` for a node of this owner and of this session, made by a request whose answer was lost."""
    paths = state.owned(owner, directory, listed)
    if paths:
        results = yield [(state.pipe.get, path) for path in paths]
        for path, result in zip(paths, results, strict=True):
            if isinstance(result, tuple) and result[1].ephemeralOwner == state.session.id:
                node.found(path, result[1])


def _stand(state: ProviderState, request: Request, node: QueueNode, directory: str, listed: Any, now: float) -> Steps:
    """The answer for the owner's place in the queue that was `listed`; None: look again."""
    if state.failed(listed):
        yield from _leave(state, request, node, directory)
        return state.refused(listed, doing=f"taking the lock {request.name!r}")
    queue = yield from state.queue(directory, listed)
    called = (node.path or "").rpartition("/")[2]
    index = next((index for index, each in enumerate(queue) if each.node == called), None)
    if index is None or node.session != state.session.id:
        node.lost()  # somebody deleted it, or the session ended: stand in line again
        return None
    decision = decide(request.mode, request.limit, queue[:index])
    if decision.verdict is Verdict.GO:
        return _take(state, request, node, now, behind=len(queue) - index - 1)
    if decision.verdict is Verdict.CONFLICT and decision.other is not None:
        yield from _leave(state, request, node, directory)
        return _conflict(state, request, decision.other)
    if not request.wait:
        return (yield from _leave(state, request, node, directory))
    other = decision.other
    watched = directory if other is None else f"{directory}/{other.node}"
    if state.watches(request.owner, node, watched):
        return Busy(LOOK_AGAIN)
    state.watch(request.owner, node, watched)
    if other is None:
        result = (yield [(state.pipe.children, directory, state.ahead_changed)])[0]
        if {each.node for each in queue[:index]} <= set(listing(result)):
            alien = yield from _alien(state, request, directory, queue[:index])
            if alien is None:
                return Busy(LOOK_AGAIN)
            yield from _leave(state, request, node, directory)
            return alien
    else:
        result = (yield [(state.pipe.get, watched, state.ahead_changed)])[0]
        waits = isinstance(result, tuple)
        if waits and state.foreign(watched, result):
            yield from _leave(state, request, node, directory)
            return _in_the_way(state, request, watched, result[1].czxid)
        if waits and not (other.limit is not None and _granted(result[0], directory)):
            return Busy(LOOK_AGAIN)
        if state.failed(result):
            yield from _leave(state, request, node, directory)
            return state.refused(result, doing=f"waiting for the lock {request.name!r}")
    state.watch_no_more(request.owner, node)
    return None


def _take(state: ProviderState, request: Request, node: QueueNode, now: float, *, behind: int) -> Grant:
    path = node.path or ""
    node.grant(now + state.session.ttl)
    state.watch_no_more(request.owner, node)
    state.held[path] = node
    if request.limit is not None and behind:
        state.session.client.set_async(path, record(request, granted=True))
    return Grant(request.name, request.owner, node.token, state.session.ttl, request.mode, request.limit)


def _leave(state: ProviderState, request: Request, node: QueueNode, directory: str) -> Steps:
    """A try that lost a race takes its node with it."""
    state.watch_no_more(request.owner, node)
    path = node.path
    if path is not None:
        result = (yield [(state.pipe.delete, path)])[0]
        if state.failed(result):
            return state.refused(result, doing=f"leaving the lock {request.name!r}")
    state.nodes.pop(request.owner, None)
    state.janitor.note(directory)
    return Busy(LOOK_AGAIN)


def _refusal(state: ProviderState, request: Request, directory: str, listed: Any) -> Steps:
    """The answer to a try that need not even join the queue; None: it may."""
    if state.failed(listed):
        return state.refused(listed, doing=f"trying the lock {request.name!r}")
    queue = names.queue(listing(listed))
    decision = decide(request.mode, request.limit, queue)
    if decision.verdict is Verdict.CONFLICT and decision.other is not None:
        return _conflict(state, request, decision.other)
    if decision.verdict is Verdict.GO:
        return None
    alien = yield from _alien(state, request, directory, queue if decision.other is None else [decision.other])
    return alien or Busy(LOOK_AGAIN)


def _alien(state: ProviderState, request: Request, directory: str, ahead: Sequence[names.Contender]) -> Steps:
    """The `Conflict` for a foreign node among those `ahead`; None without one. Each node is read once."""
    paths = [path for each in ahead if (path := f"{directory}/{each.node}") not in state.vouched]
    if not paths:
        return None
    for path, result in zip(paths, (yield [(state.pipe.get, path) for path in paths]), strict=True):
        if state.failed(result):
            return state.refused(result, doing=f"taking the lock {request.name!r}")
        if isinstance(result, tuple) and state.foreign(path, result):
            return _in_the_way(state, request, path, result[1].czxid)
    return None


def _in_the_way(state: ProviderState, request: Request, path: str, token: int) -> Conflict:
    return Conflict(
        f"lock {request.name!r}: the node {cut(path)} on {state.ensemble} stands in the way. It was not made by Narrowboat, or "
        "was damaged; waiting for it is of no use. Look at it with holders(), remove it with "
        f"evict({request.name!r}, {token}).",
        backend=state.ensemble.scheme,
    )


def _granted(data: bytes, directory: str) -> bool:
    """Whether the contender with this data has been granted a permit."""
    said = read(data, directory.rpartition("/")[2])
    return said is not None and said.granted


def _conflict(state: ProviderState, request: Request, other: names.Contender) -> Conflict:
    text = conflict(request.name, request.mode, request.limit, other.mode, other.limit)
    return Conflict(text, backend=state.ensemble.scheme)
