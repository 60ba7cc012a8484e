"""What every keeper of messages decides in the same way: who may share a name, who may differ, what a dead letter says.

Pure functions over the contract's values. They return the error instead of raising it, because in a batch it belongs into
one member's place. For backends that keep messages themselves; `backend` is the scheme that an error shall name.
"""

from __future__ import annotations

from collections.abc import Mapping

from narrowboat.contract import Address, Kind, Properties
from narrowboat.errors import Conflict, NotFound, StaleDelivery

#: Sources of this name take dead letters and have none of their own: a second level would only hide the first.
DEAD = ".dead"


def first_properties(path: str) -> Properties:
    """What a queue begins with that nobody has declared. A dead letter is never rejected for its number of deliveries."""
    return Properties(max_deliveries=0) if path.endswith(DEAD) else Properties()


def has_dead_letters(address: Address) -> bool:
    """Whether what is rejected from `address` is kept; it is dropped otherwise."""
    return address.kind is not Kind.INBOX and not address.path.endswith(DEAD)


#: More levels than any backend has.
_ALL = 1 << 30


def levels(path: str, properties: Properties, declared: bool) -> int:
    """How many levels of priority count in a source. Ordered sources have one order only, that of availability.

    A queue that nobody has declared yet may turn out to have levels, so all count until it is told otherwise. Dead letters
    keep their priority, for a redrive, but lie in the order in which they died.
    """
    if path.endswith(DEAD) or properties.ordered:
        return 0
    return properties.priorities if declared else _ALL


def rank(path: str, properties: Properties, declared: bool, priority: int) -> int:
    """Where a priority stands in the order, smaller first."""
    return -min(priority, levels(path, properties, declared))


def dead_headers(headers: Mapping[str, str], *, reason: str, attempts: int, origin: str) -> dict[str, str]:
    """The headers of a dead letter: its own, and why, how often it was handed out, and where it comes from."""
    return {
        **headers,
        "narrowboat-dead-reason": reason,
        "narrowboat-dead-attempts": str(attempts),
        "narrowboat-dead-origin": origin,
    }


def differs(path: str, stored: Properties, asked: Properties, *, backend: str) -> Conflict | None:
    """The refusal when `asked` is not what is stored, naming each property that differs."""
    pairs = zip(Properties._fields, stored, asked, strict=True)
    wrong = [f"{name} is {have!r} and was asked as {want!r}" for name, have, want in pairs if have != want]
    if not wrong:
        return None
    conflict = Conflict(
        f"{path!r} is already declared otherwise: {', '.join(wrong)}. "
        "Ask for what is stored, or delete it (with its messages) and declare it anew.",
        backend=backend,
    )
    conflict.stored = stored._asdict()
    return conflict


def stale(id: str, attempt: int, path: str, *, backend: str) -> StaleDelivery:
    """The answer to whoever settles or extends what is no longer theirs."""
    return StaleDelivery(
        f"delivery {attempt} of the message {id!r} from {path!r} is no longer ours: its lease ended, it was settled before, or "
        "its consumer or queue is gone. Nothing was changed. If this happens often, give the source a longer lease.",
        id=id,
        backend=backend,
    )


def taken(path: str, found: str, asked: str, *, backend: str) -> Conflict:
    """The refusal of a name that is something else already."""
    return Conflict(
        f"{path!r} is a {found} and cannot be a {asked} as well: queues, topics and subscriptions share one namespace, in "
        "which the subscription g of the topic prices is 'prices.g'. Take another name, or delete the first.",
        backend=backend,
    )


def missing(path: str, what: str, *, backend: str) -> NotFound:
    """The answer where nothing is made on the way (`?declare=never`)."""
    return NotFound(
        f"there is no {what} {path!r}, and the URL says declare=never. "
        "Declare it with a URL that says declare=auto, or correct the name.",
        backend=backend,
    )
