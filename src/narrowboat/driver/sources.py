"""What every keeper of messages decides alike: what a source begins with, what a dead letter says, and each refusal in words.

Pure functions over the contract's values, and `Refusals`, whose methods return an error instead of raising it, because in a
batch it belongs into one member's place. A driver adds what only it knows: what its server said, or why a delivery can be lost.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from narrowboat.contract import Address, Kind, Properties
from narrowboat.contract.messages import DEAD_ATTEMPTS, DEAD_ORIGIN, DEAD_REASON
from narrowboat.errors import Conflict, NotFound, PublishFailed, PublishUnknown, StaleDelivery, sentence

#: What the path of every source of dead letters ends with. It has none of its own: a second level would only hide the first.
DEAD = ".dead"


class Declare(enum.Enum):
    """Whether queues and topics are made on the way."""

    AUTO = "auto"
    NEVER = "never"  #: what is not there is `NotFound`


def first_properties(path: str) -> Properties:
    """What a queue begins with that nobody has declared. A dead letter is never rejected for its number of deliveries."""
    return Properties(max_deliveries=0) if path.endswith(DEAD) else Properties()


def has_dead_letters(address: Address) -> bool:
    """Whether what is rejected from `address` is kept; it is dropped otherwise.

    >>> has_dead_letters(Address(Kind.QUEUE, "orders")), has_dead_letters(Address(Kind.QUEUE, "orders.dead"))
    (True, False)
    """
    return address.kind in (Kind.QUEUE, Kind.SUBSCRIPTION) and not address.path.endswith(DEAD)


#: The properties that say how messages lie. The others are each consumer's own.
FIXED = ("ordered", "priorities")


def properties_in(found: Mapping[str, float]) -> Properties:
    """The properties of which these are known; the others as by default.

    >>> properties_in({"max_deliveries": 3.0})
    Properties(lease=30.0, max_deliveries=3, ordered=False, priorities=0)
    """
    known = {**Properties()._asdict(), **found}
    return Properties(float(known["lease"]), int(known["max_deliveries"]), bool(known["ordered"]), int(known["priorities"]))


def altered(stored: Properties, lease: float | None, max_deliveries: int | None) -> Properties:
    """What is stored after an alter; what is None stays.

    >>> altered(Properties(lease=20.0), None, 9)
    Properties(lease=20.0, max_deliveries=9, ordered=False, priorities=0)
    """
    return stored._replace(
        lease=stored.lease if lease is None else lease,
        max_deliveries=stored.max_deliveries if max_deliveries is None else max_deliveries,
    )


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
    """The headers of a dead letter: its own, and why, how often it was handed out, and where it comes from.

    >>> dead_headers({"a": "b"}, reason="expired", attempts=3, origin="orders")["narrowboat-dead-attempts"]
    '3'
    """
    return {**headers, DEAD_REASON: reason, DEAD_ATTEMPTS: str(attempts), DEAD_ORIGIN: origin}


#: Why a delivery is not ours any more, where its lease is in its message.
_LEASE = (
    "its lease ended, it was settled before, or its consumer or queue is gone. Nothing was changed. If this happens often, "
    "give the source a longer lease."
)


class Refusals:
    """The refusals of one backend, whose scheme stands in each as `backend`.

    >>> Refusals("shop").taken("prices", "topic", "queue").backend
    'shop'
    """

    def __init__(self, backend: str) -> None:
        self._backend = backend

    def differs(
        self,
        path: str,
        stored: Mapping[str, float],
        asked: Properties,
        *,
        more: str = "",
    ) -> Conflict | None:
        """The refusal when messages would have to lie otherwise than they do in what is stored; None where they need not.

        `stored`: the properties by name, so many of them as the server tells. `more`: what else is wrong, in words.

        >>> found = Refusals("shop").differs("orders", Properties()._asdict(), Properties(ordered=True))
        >>> str(found).partition(". Nothing")[0]
        "'orders' is already declared otherwise: ordered is False and was asked as True"
        >>> found.stored["lease"]
        30.0
        >>> Refusals("shop").differs("orders", Properties()._asdict(), Properties(lease=60.0, max_deliveries=9))
        """
        wrong = [
            f"{name} is {stored[name]!r} and was asked as {getattr(asked, name)!r}"
            for name in FIXED
            if stored.get(name, getattr(asked, name)) != getattr(asked, name)
        ]
        wrong += [more] if more else []
        if not wrong:
            return None
        conflict = Conflict(
            f"{path!r} is already declared otherwise: {', '.join(wrong)}. Nothing was changed. Ask for what is stored, or "
            "declare another one, publish there, and consume this one until it is empty.",
            backend=self._backend,
        )
        conflict.stored = stored
        return conflict

    def taken(self, path: str, found: str, asked: str) -> Conflict:
        """The refusal of a name that is something else already: "topic", "queue" or "subscription"."""
        return Conflict(
            f"{path!r} is a {found} and cannot be a {asked} as well: queues, topics and subscriptions share one namespace, in "
            "which the subscription g of the topic prices is 'prices.g'. Take another name, or delete the first.",
            backend=self._backend,
        )

    def missing(self, path: str, what: str, *, found: str = ", and the URL says declare=never") -> NotFound:
        """The answer where something is not there and is not made on the way. `found`: the rest of what there is to say."""
        return NotFound(
            f"there is no {what} {path!r}{found}. Declare it with a URL that says declare=auto, or correct the name.",
            backend=self._backend,
        )

    def undeclared(self, path: str, what: str) -> NotFound:
        """The answer to an alter of what is not there, or has nothing stored yet."""
        return NotFound(
            f"there is no {what} {path!r} that was declared or consumed from, so nothing could be altered. Declare it with "
            "what it shall have, or correct the name.",
            backend=self._backend,
        )

    def stale(self, id: str, path: str, attempt: int | None = None, *, why: str = _LEASE) -> StaleDelivery:
        """The answer to whoever settles or extends what is no longer theirs.

        `attempt`: which delivery it was, where that is known. `why`: the possible reasons, that nothing was changed, and what
        to do; where they are others than with leases.
        """
        which = "the delivery" if attempt is None else f"delivery {attempt}"
        return StaleDelivery(
            f"{which} of the message {id!r} from {path!r} is no longer ours: {why}", id=id, backend=self._backend
        )

    def unknown(
        self, id: str, path: str, why: object, *, dedup: bool = False, cause: BaseException | None = None
    ) -> PublishUnknown:
        """The outcome of a message that may have been stored. `dedup`: the backend drops a second one of the same id."""
        advice = (
            "Publish it again with the same id=, which is delivered once within the dedup window."
            if dedup
            else "It may be published again with the same id=, and may then be delivered twice."
        )
        error = PublishUnknown(
            f"message {id!r} to {path!r} may or may not be delivered: {sentence(why)} {advice}", id=id, backend=self._backend
        )
        error.__cause__ = cause
        return error

    def not_sent(self, id: str, path: str, why: object, *, cause: BaseException | None = None) -> PublishFailed:
        """The outcome of a message that never left, and may be published again.

        >>> str(Refusals("shop").not_sent("1", "orders", "the server is away."))
        "message '1' to 'orders' was not sent: the server is away. It may be published again."
        """
        return self._failed(id, path, f"not sent: {sentence(why)} It may be published again.", True, cause)

    def refused(
        self, id: str, path: str, why: object, *, retryable: bool = False, cause: BaseException | None = None
    ) -> PublishFailed:
        """The outcome of a message that the server did not take, and will not deliver."""
        return self._failed(id, path, f"refused: {why}", retryable, cause)

    def _failed(self, id: str, path: str, text: str, retryable: bool, cause: BaseException | None) -> PublishFailed:
        error = PublishFailed(f"message {id!r} to {path!r} was {text}", id=id, backend=self._backend, retryable=retryable)
        error.__cause__ = cause
        return error
