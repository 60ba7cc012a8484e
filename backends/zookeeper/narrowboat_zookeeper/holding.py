"""The steps of keeping a grant and of leaving the queue. See `taking` for what such a function is."""

from __future__ import annotations

from typing import Any

from narrowboat.contract.locks import Grant, Released, Request
from narrowboat.errors import LeaseLost, NarrowboatError, Reason
from narrowboat_zookeeper.book import Book, Steps


def keep(book: Book, grant: Grant, now: float) -> Steps:
    """One grant of a renewal that began at `now`."""
    place = book.places.get(grant.owner)
    path = place.path if place is not None else None
    if place is None or place.token != grant.token:
        return _lost(book, grant, Reason.TAKEN)
    if now >= place.ends:
        return _lost(book, grant, Reason.EXPIRED)  # the keeper sends its node away, if nobody else does
    gone = place.gone
    if path is None or gone is not None:
        book.drop(grant.owner, place)
        return _lost(book, grant, gone or Reason.TAKEN)
    if place.session != book.session.id:  # a session that has ended never comes back, so nobody need be asked
        book.drop(grant.owner, place)
        return _lost(book, grant, Reason.SESSION_ENDED)
    if place.armed == book.session.epoch:
        synced = (yield [(book.pipe.sync,)])[0]
    else:
        place.armed = book.session.epoch
        synced, own = yield [(book.pipe.sync,), (book.pipe.get, path, book.own_changed)]
        if isinstance(own, book.said.NoNodeError):
            place.vanished()
        elif isinstance(own, tuple):
            place.written = False  # by somebody, and it is still there
    gone = Reason.SESSION_ENDED if place.session != book.session.id else place.gone  # kazoo's thread may have told meanwhile
    if gone is not None:
        book.drop(grant.owner, place)
        return _lost(book, grant, gone)
    if isinstance(synced, Exception):
        return book.refused(synced, doing=f"renewing the lock {grant.name!r}")
    place.ends = now + book.session.ttl
    return grant if grant.ttl == book.session.ttl else grant._replace(ttl=book.session.ttl)


def _lost(book: Book, grant: Grant, reason: Reason) -> LeaseLost:
    return LeaseLost(
        f"lock {grant.name!r}: the grant with token {grant.token} is over ({reason.value}). "
        "Stop what it protects; acquire again.",
        name=grant.name,
        reason=reason,
        token=grant.token,
        backend=book.site.scheme,
    )


def free(book: Book, grant: Grant) -> Steps:
    """One grant of a release."""
    place = book.places.get(grant.owner)
    directory = book.directory(grant.name)
    if place is not None and place.path is not None and place.token == grant.token:
        path: Any = place.path
    else:
        path = yield from _find(book, grant, directory)
    if path is None or isinstance(path, NarrowboatError):
        return path or Released.NOT_HELD
    book.mine.pop(path, None)
    result = (yield [(book.pipe.delete, path)])[0]
    gone = isinstance(result, book.said.NoNodeError)
    if isinstance(result, Exception) and not gone:
        return book.refused(result, doing=f"releasing the lock {grant.name!r}")
    book.places.pop(grant.owner, None)
    book.keeper.note(directory)
    return Released.NOT_HELD if gone else Released.RELEASED


def _find(book: Book, grant: Grant, directory: str) -> Steps:
    """The path of a grant that this provider knows nothing of; None: there is none; an error where we may not look."""
    listed = (yield [(book.pipe.sync,), (book.pipe.children, directory)])[1]
    paths = book.owned(grant.owner, directory, listed)
    results = [listed, *((yield [(book.pipe.get, path) for path in paths]) if paths else [])]
    failed = next(filter(book.failed, results), None)
    if failed is not None:
        return book.refused(failed, doing=f"releasing the lock {grant.name!r}")
    there = zip(paths, results[1:], strict=True)
    return next((path for path, found in there if isinstance(found, tuple) and found[1].czxid == grant.token), None)


def withdraw(book: Book, request: Request) -> Steps:
    """One owner of a withdrawal: its node is deleted, wherever it is."""
    place = book.places.get(request.owner)
    directory = book.directory(request.name)
    if place is not None:
        book.forget_wake(request.owner, place)
    if place is not None and place.path is not None:
        paths = [place.path]
    else:
        listed = (yield [(book.pipe.sync,), (book.pipe.children, directory)])[1]
        if book.failed(listed):
            return book.refused(listed, doing=f"withdrawing from the lock {request.name!r}")
        paths = book.owned(request.owner, directory, listed)
    if paths:
        for path in paths:
            book.mine.pop(path, None)
        for result in (yield [(book.pipe.delete, path) for path in paths]):
            if book.failed(result):
                return book.refused(result, doing=f"withdrawing from the lock {request.name!r}")
        book.keeper.note(directory)
    book.places.pop(request.owner, None)
    return None
