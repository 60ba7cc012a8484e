"""One delivery in our hands: what it says, until when it is ours, and what became of it. The base of `Message` on both
faces.

The first settlement wins. Whatever is called afterwards (ack, nack, reject, extend) raises `StaleDelivery` on every
backend and on both faces: the delivery is no longer ours to settle, and the first outcome stands.

The state machine is here, without I/O and without a lock, and no other file writes one of its fields:

    HELD -> SETTLING       `begin`: the backend is asked to settle it
    SETTLING -> SETTLED    `confirm`, or `answered` with None
    SETTLING -> LOST       `answered` with StaleDelivery
    SETTLING -> HELD       `answered` with another error, or `withdraw`: there is no answer. It may be settled again
    HELD -> LOST           `lose`: its lease ended, or what it was made under

A transition is made under the mutex of the delivery's window (`window.py`). A read needs no mutex.

As for locks, our own clock decides how long a delivery is ours, from *before* the request that last succeeded was
sent, less a margin.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar

from narrowboat._engine.exchange import may_have_happened
from narrowboat._engine.holdable import Uncopied
from narrowboat._messages.checks import check_reason
from narrowboat.codecs.codec import Codec
from narrowboat.codecs.codec import decode as decode_by
from narrowboat.contract.messages import DEAD_ATTEMPTS, DEAD_ORIGIN, DEAD_REASON, Delivery, Nack, Outcome, Reject
from narrowboat.errors import BrokerError, NarrowboatError, SettleUnknown, StaleDelivery, sentence

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Dead:
    """Why a message is a dead letter."""

    reason: str
    attempts: int  #: how often it was handed to a handler
    origin: str  #: the queue or subscription that it comes from


class State(enum.Enum):
    """What became of a delivery."""

    HELD = "held"
    SETTLING = "being settled"  #: the backend was asked and has not answered
    SETTLED = "settled"
    LOST = "lost"


HELD, SETTLING, SETTLED, LOST = State


class Content:
    """What a message says: the part that a delivery and a reply have in common."""

    __slots__ = ("_delivery",)

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    @property
    def body(self) -> bytes:
        """The bytes that were published."""
        return self._delivery.body

    @property
    def id(self) -> str:
        """The message's id, the publisher's or a generated one."""
        return self._delivery.id

    @property
    def headers(self) -> Mapping[str, str]:
        """Text to text, read-only."""
        return MappingProxyType(self._delivery.headers)

    @property
    def correlation_id(self) -> str | None:
        """What the publisher gave; of a reply, the request's."""
        return self._delivery.correlation_id

    @property
    def content_type(self) -> str | None:
        """What the publisher or its codec gave."""
        return self._delivery.content_type


class Owner(Protocol):
    """The consumer of a delivery, as far as the delivery knows it."""

    path: str
    backend: str
    codec: Codec[Any] | None

    @property
    def limit(self) -> int:
        """How often it hands out a message; 0: always."""
        ...

    def has_ended(self, delivery: Delivery) -> bool:
        """Whether the feed has heard that the claim of `delivery` ended."""
        ...


class TrackedDelivery(Uncopied, Content, Generic[T]):
    """See the module's text. Any thread may read it."""

    _undecodable: bool
    _doubtful: bool
    _data: T

    __slots__ = ("_cap", "_consumer", "_data", "_doubtful", "_expires", "_state", "_undecodable", "_until")

    def __init__(self, consumer: Owner, delivery: Delivery, until: float, cap: float, expires: float | None) -> None:
        self._consumer = consumer
        self._delivery = delivery
        self._until = until  #: our clock's time at which the lease may have ended
        self._cap = cap  #: no automatic extension goes beyond this
        self._expires = expires  #: when its ttl ends
        self._state = HELD
        # `_data`, `_undecodable` and `_doubtful` are set only when they are needed: most messages never need them.

    @property
    def data(self) -> T:
        """What the queue's codec makes of the body; the body itself without a codec. Decoded at the first look.

        Raises `BrokerError` when the codec cannot decode it; such a message goes to the dead letters when the handler
        of `run` fails on it. Raises as it is what the codec raises and says may be tried again, such as `NewerVersion`: that
        message comes back.
        """
        try:
            made: T = self._data
        except AttributeError:
            made = self._data = self._decode()
        return made

    @property
    def key(self) -> str | None:
        """The key by which an ordered source orders."""
        return self._delivery.key

    @property
    def attempt(self) -> int:
        """How often it was handed out, this time included: 1 at first."""
        return self._delivery.attempt

    @property
    def max_deliveries(self) -> int:
        """After how many attempts its consumer makes a dead letter of it; 0: never."""
        return self._consumer.limit

    @property
    def redelivered(self) -> bool:
        """Whether it was handed out before."""
        return self._delivery.attempt > 1

    @property
    def published_at(self) -> float | None:
        """When it was published, in seconds since the epoch by the publisher's clock; None where that is not known."""
        return self._delivery.published_at or None  # a redrive passes 0 on where it was not known

    @property
    def priority(self) -> int:
        """Its priority; a higher one goes first."""
        return self._delivery.priority

    @property
    def dead(self) -> Dead | None:
        """Why it is a dead letter: reason, attempts, origin. None where it is none."""
        headers = self._delivery.headers
        if DEAD_REASON not in headers:
            return None
        attempts = headers.get(DEAD_ATTEMPTS, "")
        counted = int(attempts) if attempts.isdecimal() and len(attempts) < 10 else 0  # others may have written anything
        return Dead(headers[DEAD_REASON], counted, headers.get(DEAD_ORIGIN, ""))

    @property
    def lost(self) -> bool:
        """Whether it is known to be no longer ours: its lease, its connection or its membership ended; others may have it."""
        state = self._state
        return state is LOST or (state is HELD and self._consumer.has_ended(self._delivery))

    @property
    def settled(self) -> bool:
        """Whether it was acked, nacked or rejected, by anybody here, or is being settled now."""
        return self._state is SETTLED or self._state is SETTLING

    @property
    def undecodable(self) -> bool:
        """Whether `data` was asked for, and the codec could not decode the body."""
        return hasattr(self, "_undecodable")

    def _decode(self) -> T:
        try:
            made: T = decode(self._consumer.codec, self._delivery, self._consumer.path, self._consumer.backend)
        except NarrowboatError as error:
            if not error.retryable:
                self._undecodable = True
            raise
        return made

    def _lose(self) -> bool:
        """HELD -> LOST. False: it was not HELD, and nothing changed."""
        if self._state is not HELD:
            return False
        self._state = LOST
        return True

    def _extended(self, until: float) -> None:
        """The backend extended its lease."""
        self._until = until

    def _answered(self, answer: Any) -> NarrowboatError | None:
        """What the backend answered to its settlement; the error for the caller."""
        if answer is None:
            self._state = SETTLED
            return None
        if isinstance(answer, StaleDelivery):
            self._state = LOST
            # It is gone, or another consumer's; but an earlier call, whose answer was lost, may have settled it.
            return self._stale() if hasattr(self, "_doubtful") else answer
        self._state = HELD
        if isinstance(answer, NarrowboatError) and not answer.retryable and not hasattr(self, "_doubtful"):
            return answer
        if may_have_happened(answer):
            self._doubtful = True
        unknown = SettleUnknown(
            f"message {self.id!r} from {self._consumer.path!r} may or may not be settled: {sentence(answer)} "
            "Settle it again, or expect it to come back",
            id=self.id,
            backend=self._consumer.backend,
        )
        unknown.__cause__ = answer
        return unknown

    def _stale(self) -> StaleDelivery | SettleUnknown:
        """The error for a caller that settles a delivery which is settled or lost already."""
        if hasattr(self, "_doubtful") and self._state is LOST:  # a call that settled it had no answer
            return SettleUnknown(
                f"message {self.id!r} from {self._consumer.path!r} is no longer ours, and may be settled: an earlier call had "
                "no answer. Expect it to come back, or not",
                id=self.id,
                backend=self._consumer.backend,
                retryable=False,
            )
        what = "its lease ended, and somebody else may have it" if self._state is LOST else f"it is {self._state.value} already"
        return StaleDelivery(
            f"message {self.id!r} from {self._consumer.path!r} is no longer ours to settle: {what}. Nothing was changed; "
            "the first settlement stands",
            id=self.id,
            backend=self._consumer.backend,
        )

    def __repr__(self) -> str:
        delivery = self._delivery
        size = len(delivery.body)
        return f"<{type(self).__name__} {delivery.id!r} attempt={delivery.attempt} {size} bytes, {self._state.value}>"


M = TypeVar("M", bound=TrackedDelivery[Any])


def begin(deliveries: Sequence[M], mine: list[M]) -> None:
    """HELD -> SETTLING: put into `mine` those that are ours to settle. From now on no other caller settles them.

    The list is the caller's, so that an interrupted caller knows what to `withdraw`.
    """
    for each in deliveries:
        if each._state is HELD:
            each._state = SETTLING  # no call stands between this and the next line: an interrupt strikes after calls only
            mine.append(each)


def withdraw(mine: Sequence[M], *, doubtful: bool = False) -> None:
    """SETTLING -> HELD: there is no answer. `doubtful`: the backend was asked, and may have settled them."""
    for each in mine:
        each._state = HELD
        if doubtful:
            each._doubtful = True


def confirm(mine: Sequence[M]) -> None:
    """SETTLING -> SETTLED, all of them."""
    for each in mine:
        each._state = SETTLED


def decode(codec: Codec[T] | None, delivery: Delivery, source: str, backend: str) -> T:
    """What `codec` makes of a body; `BrokerError` with the codec's own error as its cause.

    An error of the codec's that is `retryable` is no verdict on the body, and is raised as it is.
    """
    body: Any = delivery.body
    if codec is None:
        return body  # type: ignore[no-any-return]  # T is bytes where there is no codec
    try:
        return decode_by(codec, body, delivery)
    except Exception as error:
        if isinstance(error, NarrowboatError) and error.retryable:
            raise
        raise BrokerError(
            f"message {delivery.id!r} from {source!r}: the codec {codec.name!r} cannot decode its {len(body)} bytes "
            f"({type(error).__name__}); its content type is {delivery.content_type!r}",
            id=delivery.id,
            backend=backend,
            retryable=False,
        ) from error


def final(outcome: Outcome, attempt: int, limit: int, malformed: str = "") -> Outcome:
    """What a settlement comes to at the `attempt`-th delivery of at most `limit` (0: no limit).

    >>> final(Nack(5.0), 4, 5)
    Nack(delay=5.0)
    >>> final(Nack(5.0), 5, 5)
    Reject(reason='nacked at delivery 5 of 5', attempts=5)
    """
    if limit and attempt >= limit and isinstance(outcome, Nack):
        return Reject(f"nacked at delivery {attempt} of {limit}{_for_the_record(malformed)}", attempt)
    return outcome


def too_often(attempt: int, limit: int, malformed: str = "") -> Reject | None:
    """The settlement of a delivery that comes once too often, before any handler sees it.

    >>> too_often(5, 5), too_often(6, 0)
    (None, None)
    >>> too_often(6, 5)
    Reject(reason='delivered 5 times without being settled', attempts=5)
    """
    if not limit or attempt <= limit:
        return None
    return Reject(f"delivered {limit} times without being settled{_for_the_record(malformed)}", limit)


def _for_the_record(malformed: str) -> str:
    """What was wrong with the message, for the reason of its dead letter."""
    return f"; {check_reason(malformed)}" if malformed else ""
