"""The steps of an attempt: stand in the queue, look who is before, go or watch.

Each function is one member's part of an exchange (`Steps`): it yields what is to be sent and is given what came of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from narrowboat.contract.locks import Busy, Grant, Request
from narrowboat.driver.admission import conflict
from narrowboat.driver.texts import cut
from narrowboat.errors import Conflict, NarrowboatError, Unavailable
from narrowboat_zookeeper import names
from narrowboat_zookeeper.book import GLANCE, Book, Requests, Steps, listing
from narrowboat_zookeeper.place import Place, Verdict, decide, read, record

#: Seconds after which a waiter looks again although no watch told it to.
LOOK_AGAIN = 5.0
#: Looks in one attempt while what is to be watched vanishes each time.
_ROUNDS = 6


def take(book: Book, request: Request, now: float) -> Steps:
    """One request of an attempt that began at `now`."""
    pipe = book.pipe
    directory = book.directory(request.name)
    place = book.places.get(request.owner)
    listed: Any = None
    if place is not None:
        listed = yield from _again(book, request, place, directory, now)
        if isinstance(listed, NarrowboatError):
            return listed
    if not request.wait and (place is None or place.path is None):
        listed = (yield [(pipe.sync,), (pipe.children, directory)])[1]
        refusal = yield from _refusal(book, request, directory, listed)
        if refusal is not None:
            book.places.pop(request.owner, None)
            return refusal
        listed = None
    if place is None:
        place = Place(request.wake)
        place.under_way = True
        book.places[request.owner] = place  # before anything is sent: it may be there from now on
    for _ in range(_ROUNDS):
        if place.path is None:
            error = yield from _create(book, request, place, directory)
            if isinstance(error, NarrowboatError):
                book.places.pop(request.owner, None)
                return error
            listed = error
        elif listed is None:
            listed = (yield [(pipe.children, directory)])[0]
        answer = yield from _stand(book, request, place, directory, listed, now)
        if answer is not None:
            return answer
        listed = None
    if request.wait:
        return Busy(0.05)
    return (yield from _leave(book, request, place, directory))


def _again(book: Book, request: Request, place: Place, directory: str, now: float) -> Steps:
    """An owner that was here before: the listing, if its node is there, otherwise None."""
    pipe = book.pipe
    place.wake = request.wake
    if place.expelled and place.path is not None:
        yield [(pipe.delete, place.path)]
        place.lost()
    glance, place.glance = place.glance, None
    looking: Requests = [(pipe.sync,), (pipe.children, directory)]
    if glance is not None and now - glance[0] < GLANCE:
        if glance[2].exception is None:
            looking = [(pipe.sent, glance[1]), (pipe.sent, glance[2])]
    elif glance is not None:
        book.glancing = False  # on a slow network it only delays
    elif place.behind == (directory, book.session.epoch):  # at the front: look and watch in one
        book.behind.setdefault(directory, {})[request.owner] = None
        looking[1] = (pipe.children, directory, book.ahead_changed)
    synced, listed = yield looking
    if isinstance(synced, Exception):
        return book.refused(synced, doing=f"waiting for the lock {request.name!r}")
    if place.path is None or place.session != book.session.id:
        if place.path is not None:
            book.mine.pop(place.path, None)
        place.lost()
        yield from _search(book, request.owner, place, directory, listed)
    return listed if place.path is not None else None


def _create(book: Book, request: Request, place: Place, directory: str) -> Steps:
    """The listing that follows the owner's new node, or why there is none."""
    pipe = book.pipe
    path = f"{directory}/{names.stem(request.mode, request.limit, request.owner)}"
    create = [(pipe.create, path, record(request, granted=False)), (pipe.children, directory)]
    before: Requests = [] if directory in book.known else [(pipe.make, directory)]
    for _ in range(_ROUNDS):
        *made, created, listed = yield [*before, *create]
        if isinstance(created, tuple) and created[0] is not None:
            place.found(*created)
            book.remember(directory)
            return listed
        if made and isinstance(made[0], book.said.NoAuthError):
            created = made[0]
        if not isinstance(created, book.said.NoNodeError):
            return book.refused(created, doing=f"taking the lock {request.name!r}")
        refusal = yield from _parents(book)
        if refusal is not None:
            return refusal
        before = [(pipe.make, directory)]
    return Unavailable(
        f"the node {directory} on {book.site} is deleted again and again while the lock {request.name!r} is taken. "
        "Look for who deletes it; the call may be repeated.",
        backend=book.site.scheme,
    )


def _parents(book: Book) -> Steps:
    """Make the nodes above all locks; the chroot only if that was asked for."""
    base, root = book.site.base, f"{book.site.base}/{names.ROOT}"
    paths = [root, book.namespace]
    if base and book.site.options.create:
        parts = base[1:].split("/")
        paths = ["/" + "/".join(parts[: count + 1]) for count in range(len(parts))] + paths
    results = yield [(book.pipe.make, path, path == root) for path in paths]
    for path, result in zip(paths, results, strict=True):
        if not isinstance(result, Exception) or isinstance(result, book.said.NodeExistsError):
            continue
        if isinstance(result, book.said.NoNodeError) and base and not book.site.options.create:
            return book.missing()
        if isinstance(result, book.said.NoAuthError):  # an existing parent need not let us create in it; a missing one must
            there = (yield [(book.pipe.get, path)])[0]
            if not isinstance(there, book.said.NoNodeError):
                continue
        return book.refused(result, doing=f"making {path}")
    return None


def _search(book: Book, owner: str, place: Place, directory: str, listed: Any) -> Steps:
    """Look among `listed` for a node of this owner and of this session, made by a request whose answer was lost."""
    paths = book.owned(owner, directory, listed)
    if paths:
        results = yield [(book.pipe.get, path) for path in paths]
        for path, result in zip(paths, results, strict=True):
            if isinstance(result, tuple) and result[1].ephemeralOwner == book.session.id:
                place.found(path, result[1])


def _stand(book: Book, request: Request, place: Place, directory: str, listed: Any, now: float) -> Steps:
    """What comes of standing in the queue that was `listed`; None: look again."""
    if book.failed(listed):
        yield from _leave(book, request, place, directory)
        return book.refused(listed, doing=f"taking the lock {request.name!r}")
    queue = yield from book.queue(directory, listed)
    node = (place.path or "").rpartition("/")[2]
    index = next((index for index, each in enumerate(queue) if each.node == node), None)
    if index is None or place.session != book.session.id:
        place.lost()  # somebody deleted it, or the session ended: stand in line again
        return None
    decision = decide(request.mode, request.limit, queue[:index])
    if decision.verdict is Verdict.GO:
        return _take(book, request, place, now, behind=len(queue) - index - 1)
    if decision.verdict is Verdict.CONFLICT and decision.other is not None:
        yield from _leave(book, request, place, directory)
        return _conflict(book, request, decision.other)
    if not request.wait:
        return (yield from _leave(book, request, place, directory))
    other = decision.other
    watched = directory if other is None else f"{directory}/{other.node}"
    epoch = book.session.epoch
    if place.behind == (watched, epoch) and request.owner in book.behind.get(watched, ()):
        return Busy(LOOK_AGAIN)
    place.behind = (watched, epoch)
    book.behind.setdefault(watched, {})[request.owner] = None
    if other is None:
        result = (yield [(book.pipe.children, directory, book.ahead_changed)])[0]
        if {each.node for each in queue[:index]} <= set(listing(result)):
            alien = yield from _alien(book, request, directory, queue[:index])
            if alien is None:
                return Busy(LOOK_AGAIN)
            yield from _leave(book, request, place, directory)
            return alien
    else:
        result = (yield [(book.pipe.get, watched, book.ahead_changed)])[0]
        waits = isinstance(result, tuple)
        if waits and book.foreign(watched, result):
            yield from _leave(book, request, place, directory)
            return _in_the_way(book, request, watched, result[1].czxid)
        if waits and not (other.limit is not None and _granted(result[0], directory)):
            return Busy(LOOK_AGAIN)
        if book.failed(result):
            yield from _leave(book, request, place, directory)
            return book.refused(result, doing=f"waiting for the lock {request.name!r}")
    book.forget_wake(request.owner, place)
    return None


def _take(book: Book, request: Request, place: Place, now: float, *, behind: int) -> Grant:
    path = place.path or ""
    place.granted = True
    place.wake = _nobody
    place.ends = now + book.session.ttl
    book.forget_wake(request.owner, place)
    book.mine[path] = place
    if request.limit is not None and behind:
        book.session.client.set_async(path, record(request, granted=True))
    return Grant(request.name, request.owner, place.token, book.session.ttl, request.mode, request.limit)


def _leave(book: Book, request: Request, place: Place, directory: str) -> Steps:
    """A try that lost a race takes its node with it."""
    book.forget_wake(request.owner, place)
    path = place.path
    if path is not None:
        result = (yield [(book.pipe.delete, path)])[0]
        if book.failed(result):
            return book.refused(result, doing=f"leaving the lock {request.name!r}")
    book.places.pop(request.owner, None)
    book.keeper.note(directory)
    return Busy(LOOK_AGAIN)


def _refusal(book: Book, request: Request, directory: str, listed: Any) -> Steps:
    """Why a try need not even begin; None: it may."""
    if book.failed(listed):
        return book.refused(listed, doing=f"trying the lock {request.name!r}")
    queue = names.queue(listing(listed))
    decision = decide(request.mode, request.limit, queue)
    if decision.verdict is Verdict.CONFLICT and decision.other is not None:
        return _conflict(book, request, decision.other)
    if decision.verdict is Verdict.GO:
        return None
    alien = yield from _alien(book, request, directory, queue if decision.other is None else [decision.other])
    return alien or Busy(LOOK_AGAIN)


def _alien(book: Book, request: Request, directory: str, ahead: Sequence[names.Contender]) -> Steps:
    """The `Conflict` for what is foreign among those `ahead`; None without. Each is read once, however often it is met."""
    paths = [path for each in ahead if (path := f"{directory}/{each.node}") not in book.vouched]
    if not paths:
        return None
    for path, result in zip(paths, (yield [(book.pipe.get, path) for path in paths]), strict=True):
        if book.failed(result):
            return book.refused(result, doing=f"taking the lock {request.name!r}")
        if isinstance(result, tuple) and book.foreign(path, result):
            return _in_the_way(book, request, path, result[1].czxid)
    return None


def _in_the_way(book: Book, request: Request, path: str, token: int) -> Conflict:
    return Conflict(
        f"lock {request.name!r}: the node {cut(path)} on {book.site} stands in the way. It was not made by Narrowboat, or was "
        f"damaged; waiting for it is of no use. Look at it with holders(), remove it with evict({request.name!r}, {token}).",
        backend=book.site.scheme,
    )


def _granted(data: bytes, directory: str) -> bool:
    """Whether the contender whose data this is has been granted a permit."""
    said = read(data, directory.rpartition("/")[2])
    return said is not None and said.granted


def _conflict(book: Book, request: Request, other: names.Contender) -> Conflict:
    text = conflict(request.name, request.mode, request.limit, other.mode, other.limit)
    return Conflict(text, backend=book.site.scheme)


def _nobody() -> None:
    """The wake of an owner that waits no longer."""
