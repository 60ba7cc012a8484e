"""The steps of `holders`, `evict` and `ping`. See `taking` for what such a function is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

from narrowboat.contract.locks import Holder, Mode
from narrowboat.driver.admission import disagree, heads
from narrowboat.driver.texts import cut
from narrowboat.errors import Conflict, NarrowboatError
from narrowboat_zookeeper import names
from narrowboat_zookeeper.names import Contender
from narrowboat_zookeeper.provider_state import ProviderState, Steps, listing
from narrowboat_zookeeper.records import Said, ours

#: Nodes that are read at once. Each may have a megabyte, so more at once would take that much more memory.
_AT_ONCE = 500


class Node(NamedTuple):
    """One node under a lock's node, as it was read."""

    path: str
    contender: Contender | None  #: None: its name is not that of a contender
    token: int
    made: float  #: seconds since the epoch
    said: Said | None  #: None: it is foreign, or was damaged


class Seen(NamedTuple):
    """All nodes under one lock's node."""

    lock: str  #: relative to the namespace
    holding: list[Node]
    foreign: list[Node]  #: not made by Narrowboat, or damaged, whatever their place in the queue
    waiting: int


def holders(state: ProviderState, name: str | None) -> Steps:
    """The holders of `name`, or of all names, and the foreign nodes there, so that an operator can remove them."""
    if name is not None:
        locks = [names.lock_node(name)]
    else:
        listed = (yield [(state.pipe.sync,), (state.pipe.children, state.namespace)])[1]
        if state.failed(listed):
            return state.refused(listed, doing="looking who holds locks")
        locks = sorted(filter(names.of_a_lock, listing(listed)))
    seen = yield from _see(state, locks)
    if isinstance(seen, NarrowboatError):
        return seen
    found = [_shown(node, name, each) for each in seen for node in each.holding + each.foreign]
    return sorted(found, key=lambda holder: (holder.name, holder.token))


def _shown(node: Node, name: str | None, seen: Seen) -> Holder:
    said = node.said
    told = next((each.said.name for each in seen.holding if each.said is not None), seen.lock)  # of a lock whose name is hashed
    mode, limit = (node.contender.mode, node.contender.limit) if node.contender is not None else (Mode.EXCLUSIVE, None)
    label, since = (said.label, said.at) if said is not None else ("", node.made)
    clear = name or names.lock_name(seen.lock) or told
    return Holder(clear, node.token, label, mode, limit, since, None, seen.waiting, foreign=said is None)


def evict(state: ProviderState, name: str, token: int) -> Steps:
    """Delete that generation's node. False: it was not there."""
    # `holders` has nothing else than its hash to call a lock whose name was hashed, where all that is in it is foreign.
    locks = [names.lock_node(name)] + ([name] if names.is_hash(name) else [])
    seen = yield from _see(state, locks)
    if isinstance(seen, NarrowboatError):
        return seen
    node = next((node for each in seen for node in each.holding + each.foreign if node.token == token), None)
    if node is None:
        return False
    remove = (state.pipe.delete, node.path) if node.contender is None else (state.pipe.mark_and_delete, node.path, b"evicted")
    result = (yield [remove])[0]
    failed = next((e for e in (result if isinstance(result, list) else [result]) if isinstance(e, Exception)), None)
    if failed is None:
        state.janitor.note(node.path.rpartition("/")[0])
        return True
    if isinstance(failed, state.kazoo_errors.NotEmptyError):
        return Conflict(
            f"lock {name!r}: the node {cut(node.path)} on {state.ensemble} has nodes of its own below it, which Narrowboat did "
            "not make. Nothing was removed. Look at them, and remove them with ZooKeeper's own tools.",
            backend=state.ensemble.scheme,
        )
    if isinstance(failed, (state.kazoo_errors.NoNodeError, state.kazoo_errors.RolledBackError)):
        return False
    return state.refused(failed, doing=f"evicting the holder of the lock {name!r}")


def _see(state: ProviderState, locks: Sequence[str]) -> Steps:
    """Read the nodes under each of `locks`: one round for all listings, and one for each `_AT_ONCE` nodes."""
    if not locks:
        return []
    _, *listings = yield [(state.pipe.sync,), *((state.pipe.children, f"{state.namespace}/{lock}") for lock in locks)]
    wanted: list[tuple[str, str, Contender | None]] = []
    for lock, listed in zip(locks, listings, strict=True):
        if state.failed(listed):
            return state.refused(listed, doing="looking who holds a lock")
        nodes = listing(listed)
        contenders = [(each.node, each) for each in names.queue(nodes)]
        others = [(node, None) for node in nodes if names.contender(node) is None]
        wanted += [(lock, f"{state.namespace}/{lock}/{node}", each) for node, each in [*contenders, *others]]
    there: dict[str, list[Node]] = {lock: [] for lock in locks}
    for start in range(0, len(wanted), _AT_ONCE):
        part = wanted[start : start + _AT_ONCE]
        # A node whose name is no contender's is not read: it belongs to another program, and this user may have no right to it.
        results = yield [(state.pipe.get if each is not None else state.pipe.exists, path) for _, path, each in part]
        for (lock, path, each), result in zip(part, results, strict=True):
            if state.failed(result) and not (each is None and isinstance(result, state.kazoo_errors.NoAuthError)):
                return state.refused(result, doing="looking who holds a lock")
            if isinstance(result, tuple):
                data, stat = result if each is not None else (b"", result)
                said = ours((data, stat), lock) if each is not None else None
                there[lock].append(Node(path, each, stat.czxid, stat.ctime / 1000.0, said))
    return [_sorted(lock, found) for lock, found in there.items()]


def _sorted(lock: str, there: list[Node]) -> Seen:
    """Sort the nodes into holders, waiters and foreign ones. A foreign node takes no place in the queue."""
    if names.ambiguous(node.contender for node in there if node.contender is not None):
        there.sort(key=lambda node: node.token)
    foreign = [node for node in there if node.said is None]
    queue = [node for node in there if node.said is not None]
    terms = [(node.contender.mode, node.contender.limit) for node in queue if node.contender is not None]
    agreeing = takewhile(lambda each: not disagree(*each, *terms[0]), terms)
    count = heads(agreeing, holding=None, held=0)
    return Seen(lock, queue[:count], foreign, len(queue) - count)


def ping(state: ProviderState) -> Steps:
    """Check what a call needs: the leader answers, the URL's path exists, and its locks may be read."""
    base = state.ensemble.base or "/"
    synced, there, listed = yield [(state.pipe.sync,), (state.pipe.get, base), (state.pipe.children, state.namespace)]
    if isinstance(there, state.kazoo_errors.NoNodeError) and not state.ensemble.options.create:
        return state.missing()
    failed = synced if isinstance(synced, Exception) else listed
    return state.refused(failed, doing="a ping") if state.failed(failed) else None
