"""The steps of looking at locks from outside, and of eviction. See `taking` for what such a function is."""

from __future__ import annotations

from collections.abc import Sequence

from narrowboat.contract.locks import Holder
from narrowboat.errors import NarrowboatError
from narrowboat_zookeeper import names
from narrowboat_zookeeper.book import Book, Steps, listing
from narrowboat_zookeeper.place import Verdict, decide, read


def holders(book: Book, name: str | None) -> Steps:
    """Who holds `name`, or everything."""
    pipe = book.pipe
    if name is not None:
        directories = [names.lock_node(name)]
        listings = [(yield [(pipe.sync,), (pipe.children, book.directory(name))])[1]]
    else:
        directories = sorted(listing((yield [(pipe.sync,), (pipe.children, book.namespace)])[1]))
        listings = []
        if directories:
            listings = yield [(pipe.children, f"{book.namespace}/{each}") for each in directories]
    found: list[Holder] = []
    for directory, listed in zip(directories, listings, strict=True):
        if book.failed(listed):
            return book.refused(listed, doing="looking who holds a lock")
        queue = yield from book.queue(f"{book.namespace}/{directory}", listed)
        holding = _holding(queue)
        if not holding:
            continue
        results = yield [(pipe.get, f"{book.namespace}/{directory}/{each.node}") for each in holding]
        for each, result in zip(holding, results, strict=True):
            if isinstance(result, tuple):
                said = read(result[0], result[1].ctime / 1000.0)
                clear = name or names.lock_name(directory) or said.name or directory
                waiters = len(queue) - len(holding)
                found.append(Holder(clear, result[1].czxid, said.label, each.mode, each.limit, said.at, None, waiters))
    return sorted(found, key=lambda holder: (holder.name, holder.token))


def evict(book: Book, name: str, token: int) -> Steps:
    """Whether that generation was there, and now is not."""
    path = yield from generation(book, book.directory(name), token)
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
    """The path of the holder with that token; None when there is none; an error where we may not look."""
    listed = (yield [(book.pipe.sync,), (book.pipe.children, directory)])[1]
    if book.failed(listed):
        return book.refused(listed, doing="looking who holds a lock")
    queue = yield from book.queue(directory, listed)
    holding = [each for each in _holding(queue) if owner is None or each.owner == owner]
    if not holding:
        return None
    results = yield [(book.pipe.get, f"{directory}/{each.node}") for each in holding]
    for each, result in zip(holding, results, strict=True):
        if isinstance(result, tuple) and result[1].czxid == token:
            return f"{directory}/{each.node}"
    return None


def ping(book: Book) -> Steps:
    """What a `sync` meets."""
    result = (yield [(book.pipe.sync,)])[0]
    return book.refused(result, doing="a ping") if isinstance(result, Exception) else None


def _holding(queue: Sequence[names.Contender]) -> list[names.Contender]:
    """Those of a queue who hold."""
    return [each for index, each in enumerate(queue) if decide(each.mode, each.limit, queue[:index]).verdict is Verdict.GO]
