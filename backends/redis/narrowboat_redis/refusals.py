"""What a message script's refusal means in words: a name that is something else, properties that differ, what is not there.

Pure functions. They return the error instead of raising it, because in a batch it belongs into one member's place.
"""

from __future__ import annotations

from collections.abc import Sequence

from narrowboat.contract import Properties
from narrowboat.errors import Conflict, NarrowboatError, NotFound, StaleDelivery
from narrowboat_redis.options import SCHEME
from narrowboat_redis.places import Place


def texts_of(properties: Properties) -> tuple[bytes, bytes, bytes, bytes]:
    """Properties as they are stored.

    >>> texts_of(Properties())
    (b'30.0', b'5', b'0', b'0')
    """
    lease, most, ordered, levels = properties
    return repr(float(lease)).encode(), b"%d" % most, b"%d" % ordered, b"%d" % levels


def properties_of(texts: Sequence[bytes]) -> Properties:
    """The same back."""
    lease, most, ordered, levels = texts
    return Properties(float(lease), int(most), ordered == b"1", int(levels))


def refusal(answer: Sequence[bytes], place: Place, asked: Properties) -> NarrowboatError | None:
    """The error in a script's answer; None where it begins with "ok"."""
    word = answer[0]
    if word == b"ok":
        return None
    if word == b"missing":
        return missing(place)
    if word == b"differs":
        return differs(place.path, properties_of(answer[1:5]), asked)
    found, whose = answer[1].decode(), answer[2].decode()
    return taken(place.path.rpartition(".")[0] if whose else place.path, found, whose or place.kind.value)


def missing(place: Place) -> NotFound:
    """The answer where nothing is made on the way (`?declare=never`)."""
    return NotFound(
        f"there is no {place.kind.value} {place.path!r}, and the URL says declare=never. "
        "Declare it with a URL that says declare=auto, or correct the name.",
        backend=SCHEME,
    )


def taken(path: str, found: str, asked: str) -> Conflict:
    """The refusal of a name that is something else already."""
    return Conflict(
        f"{path!r} is a {found} and cannot be a {asked} as well: queues, topics and subscriptions share one namespace, in "
        "which the subscription g of the topic prices is 'prices.g'. Take another name, or delete the first.",
        backend=SCHEME,
    )


def differs(path: str, stored: Properties, asked: Properties) -> Conflict:
    """The refusal when `asked` is not what is stored, naming each property that differs."""
    pairs = zip(Properties._fields, stored, asked, strict=True)
    wrong = [f"{name} is {have!r} and was asked as {want!r}" for name, have, want in pairs if have != want]
    return Conflict(
        f"{path!r} is already declared otherwise: {', '.join(wrong)}. "
        "Ask for what is stored, or delete it (with its messages) and declare it anew.",
        backend=SCHEME,
    )


def stale(id: str, attempt: int, path: str) -> StaleDelivery:
    """The answer to whoever settles or extends what is no longer theirs."""
    return StaleDelivery(
        f"delivery {attempt} of the message {id!r} from {path!r} is no longer ours: its lease ended, it was settled before, or "
        "its consumer or queue is gone. Nothing was changed. If this happens often, give the source a longer lease.",
        id=id,
        backend=SCHEME,
    )
