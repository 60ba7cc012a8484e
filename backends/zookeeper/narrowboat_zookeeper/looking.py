"""The steps of looking at locks from outside, and of eviction. See `taking` for what such a function is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from narrowboat.contract.locks import Holder
from narrowboat.errors import NarrowboatError
from narrowboat_zookeeper import names
from narrowboat_zookeeper.book import Book, Steps, listing
from narrowboat_zookeeper.names import Contender
from narrowboat_zookeeper.place import Verdict, decide, ours


class Seen(NamedTuple):
    """The contenders of one lock with what was read of each: data and stat."""

    lock: str  #: its node, relative to the namespace
    holding: list[tuple[Contender, Any]]
    foreign: list[tuple[Contender, Any]]  #: not made by Narrowboat, or damaged, wherever they stand
    waiting: int


def holders(book: Book, name: str | None) -> Steps:
    """Who holds `name`, or everything; and what stands there that is not ours, for whoever has to remove it."""
    if name is not None:
        locks = [names.lock_node(name)]
    else:
        listed = (yield [(book.pipe.sync,), (book.pipe.children, book.namespace)])[1]
        if book.failed(listed):
            return book.refused(listed, doing="looking who holds locks")
        locks = sorted(filter(names.of_a_lock, listing(listed)))
    seen = yield from _see(book, locks)
    if isinstance(seen, NarrowboatError):
        return seen
    found: list[Holder] = []
    for each in seen:
        said = [(contender, stat, ours((data, stat), each.lock)) for contender, (data, stat) in each.holding + each.foreign]
        told = next((record.name for _, _, record in said if record is not None), each.lock)
        clear = name or names.lock_name(each.lock) or told
        for number, (contender, stat, record) in enumerate(said):
            label, at = (record.label, record.at) if record is not None else ("", stat.ctime / 1000.0)
            foreign = number >= len(each.holding)
            found.append(
                Holder(clear, stat.czxid, label, contender.mode, contender.limit, at, None, each.waiting, foreign=foreign)
            )
    return sorted(found, key=lambda holder: (holder.name, holder.token))


def evict(book: Book, name: str, token: int) -> Steps:
    """Whether that generation was there, and now is not."""
    path = yield from generation(book, book.directory(name), token)
    if path is None and names.is_hash(name):  # `holders` has nothing else to call a hashed lock where all of it is foreign
        path = yield from generation(book, f"{book.namespace}/{name}", token)
    if path is None or isinstance(path, NarrowboatError):
        return path or False
    result = (yield [(book.pipe.break_, path, b"evicted")])[0]
    failed = result if isinstance(result, Exception) else next((e for e in result if isinstance(e, Exception)), None)
    if failed is None:
        book.keeper.note(book.directory(name))
        return True
    if isinstance(failed, (book.said.NoNodeError, book.said.RolledBackError)):
        return False
    return book.refused(failed, doing=f"evicting the holder of the lock {name!r}")


def generation(book: Book, directory: str, token: int, owner: str | None = None) -> Steps:
    """The path of the holder, or of what is foreign, with that token; None: there is none; an error where we may not look."""
    seen = yield from _see(book, [directory.rpartition("/")[2]])
    if isinstance(seen, NarrowboatError):
        return seen
    for each, (_, stat) in seen[0].holding + seen[0].foreign:
        if stat.czxid == token and owner in (None, each.owner):
            return f"{directory}/{each.node}"
    return None


def _see(book: Book, locks: Sequence[str]) -> Steps:
    """What stands under each of `locks`, in two rounds for all of them."""
    if not locks:
        return []
    _, *listings = yield [(book.pipe.sync,), *((book.pipe.children, f"{book.namespace}/{lock}") for lock in locks)]
    wanted: list[tuple[str, Contender]] = []
    for lock, listed in zip(locks, listings, strict=True):
        if book.failed(listed):
            return book.refused(listed, doing="looking who holds a lock")
        wanted += [(lock, each) for each in names.queue(listing(listed))]
    results = (yield [(book.pipe.get, f"{book.namespace}/{lock}/{each.node}") for lock, each in wanted]) if wanted else []
    there: dict[str, list[tuple[Contender, Any]]] = {lock: [] for lock in locks}
    for (lock, each), result in zip(wanted, results, strict=True):
        if book.failed(result):
            return book.refused(result, doing="looking who holds a lock")
        if isinstance(result, tuple):
            there[lock].append((each, result))
    return [_sorted(lock, queue) for lock, queue in there.items()]


def _sorted(lock: str, there: list[tuple[Contender, Any]]) -> Seen:
    """Who of them holds: what is foreign takes nobody's place, wherever its number puts it."""
    if names.ambiguous(each for each, _ in there):
        there.sort(key=lambda each: each[1][1].czxid)
    foreign = [each for each in there if ours(each[1], lock) is None]
    queue = [each for each in there if each not in foreign]
    ahead = [each for each, _ in queue]
    holding = [each for n, each in enumerate(queue) if decide(each[0].mode, each[0].limit, ahead[:n]).verdict is Verdict.GO]
    return Seen(lock, holding, foreign, len(queue) - len(holding))


def ping(book: Book) -> Steps:
    """What a call would meet: whether the leader answers, the path of the URL is there, and its locks may be read."""
    base = book.site.base or "/"
    synced, there, listed = yield [(book.pipe.sync,), (book.pipe.get, base), (book.pipe.children, book.namespace)]
    if isinstance(there, book.said.NoNodeError) and not book.site.options.create:
        return book.missing()
    failed = synced if isinstance(synced, Exception) else listed
    return book.refused(failed, doing="a ping") if book.failed(failed) else None
