"""The steps of a renewal, a release and a withdrawal. See `taking` for what such a function is."""

from __future__ import annotations

from typing import Any

from narrowboat.contract.locks import Grant, Released, Request
from narrowboat.driver.admission import lost
from narrowboat.errors import NarrowboatError, Reason
from narrowboat_zookeeper.provider_state import ProviderState, Steps


def keep(state: ProviderState, grant: Grant, now: float) -> Steps:
    """Renew one grant; the renewal began at `now`."""
    node = state.nodes.get(grant.owner)
    path = node.path if node is not None else None
    if node is None or node.token != grant.token:
        return lost(grant, Reason.TAKEN, backend=state.ensemble.scheme)
    if now >= node.ends:
        return lost(
            grant, Reason.EXPIRED, backend=state.ensemble.scheme
        )  # the janitor sends its node away, if nobody else does
    gone = node.gone
    if path is None or gone is not None:
        state.drop(grant.owner, node)
        return lost(grant, gone or Reason.TAKEN, backend=state.ensemble.scheme)
    if node.session != state.session.id:  # a session that has ended never comes back, so nobody need be asked
        state.drop(grant.owner, node)
        return lost(grant, Reason.SESSION_ENDED, backend=state.ensemble.scheme)
    if node.watched_in == state.session.epoch:
        synced = (yield [(state.pipe.sync,)])[0]
    else:
        node.own_watch_sent(state.session.epoch)
        synced, own = yield [(state.pipe.sync,), (state.pipe.get, path, state.own_changed)]
        if isinstance(own, state.kazoo_errors.NoNodeError):
            node.vanished()
        elif isinstance(own, tuple):
            node.still_there()
    gone = Reason.SESSION_ENDED if node.session != state.session.id else node.gone  # kazoo's thread may have told meanwhile
    if gone is not None:
        state.drop(grant.owner, node)
        return lost(grant, gone, backend=state.ensemble.scheme)
    if isinstance(synced, Exception):
        return state.refused(synced, doing=f"renewing the lock {grant.name!r}")
    node.renew(now + state.session.ttl)
    return grant if grant.ttl == state.session.ttl else grant._replace(ttl=state.session.ttl)


def free(state: ProviderState, grant: Grant) -> Steps:
    """Release one grant."""
    node = state.nodes.get(grant.owner)
    directory = state.directory(grant.name)
    if node is not None and node.path is not None and node.token == grant.token:
        path: Any = node.path
    else:
        path = yield from _find(state, grant, directory)
    if path is None or isinstance(path, NarrowboatError):
        return path or Released.NOT_HELD
    state.held.pop(path, None)
    result = (yield [(state.pipe.delete, path)])[0]
    gone = isinstance(result, state.kazoo_errors.NoNodeError)
    if isinstance(result, Exception) and not gone:
        return state.refused(result, doing=f"releasing the lock {grant.name!r}")
    state.nodes.pop(grant.owner, None)
    state.janitor.note(directory)
    return Released.NOT_HELD if gone else Released.RELEASED


def _find(state: ProviderState, grant: Grant, directory: str) -> Steps:
    """The path of a grant that this provider does not know. None: there is none. An error where the user may not look."""
    listed = (yield [(state.pipe.sync,), (state.pipe.children, directory)])[1]
    paths = state.owned(grant.owner, directory, listed)
    results = [listed, *((yield [(state.pipe.get, path) for path in paths]) if paths else [])]
    failed = next(filter(state.failed, results), None)
    if failed is not None:
        return state.refused(failed, doing=f"releasing the lock {grant.name!r}")
    there = zip(paths, results[1:], strict=True)
    return next((path for path, found in there if isinstance(found, tuple) and found[1].czxid == grant.token), None)


def withdraw(state: ProviderState, request: Request) -> Steps:
    """Withdraw one owner: delete its node, wherever it is."""
    node = state.nodes.get(request.owner)
    directory = state.directory(request.name)
    if node is not None:
        state.watch_no_more(request.owner, node)
    if node is not None and node.path is not None:
        paths = [node.path]
    else:
        listed = (yield [(state.pipe.sync,), (state.pipe.children, directory)])[1]
        if state.failed(listed):
            return state.refused(listed, doing=f"withdrawing from the lock {request.name!r}")
        paths = state.owned(request.owner, directory, listed)
    if paths:
        for path in paths:
            state.held.pop(path, None)
        for result in (yield [(state.pipe.delete, path) for path in paths]):
            if state.failed(result):
                return state.refused(result, doing=f"withdrawing from the lock {request.name!r}")
        state.janitor.note(directory)
    state.nodes.pop(request.owner, None)
    return None
