"""The message contract: what a driver does with one batch of messages, deliveries or settlements.

A driver is thin. It stores, hands out and settles in batches. It does not wait, retry, keep a prefetch window, count
deliveries against a limit, run handlers or extend leases on its own: the core does, once for all backends.

Who retries: the core, and never a `send` (its members become `PublishUnknown`). Client libraries must not retry where a
lost reply could store twice.
How long a call may block: one operation timeout (`Context.timeout`); then it raises `Unavailable`. `receive` never waits.
From how many threads: with `Concurrency.SERIAL` the core makes at most one `receive` at a time over all feeds of one
broker, beside it at most one `send`, and at most one `settle` or `extend`; `open`, `inbox`, `declare`, `delete`,
`purge`, `depth`, `ping` and `Feed.close` may come from any thread at any time. With `MULTIPLEXED` any call may.
What may be kept: `wake`, until the feed is closed; a delivery's own `tag`.
What may be raised: an exception means that the whole exchange failed and the outcome is unknown for every member. What
one member caused is returned in its place.
What a driver knows not to have been sent, it says: `Unavailable(..., sent=False)`, raised where no byte of the exchange left (a
refused connection, a transaction that could not begin) or returned in the place of the member that alone was not sent. Of a
publish the core makes `PublishFailed` of it, and `PublishUnknown` of every other `Unavailable`, so that the same situation has
the same outcome on all backends. An exchange that the server has surely rolled back as a whole counts as not sent.
A BaseException may strike at any point of any call: the driver must then still be usable.
"""

from __future__ import annotations

import dataclasses
import enum
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from narrowboat.capabilities import BrokerCapabilities
from narrowboat.errors import NarrowboatError

#: The headers of a dead letter beside its own: why it is one, how often it was handed out, and the path of its source.
DEAD_REASON, DEAD_ATTEMPTS, DEAD_ORIGIN = "narrowboat-dead-reason", "narrowboat-dead-attempts", "narrowboat-dead-origin"
#: What those begin with, and whatever else a driver adds to a message when it dies. A redrive leaves such headers off.
DEAD_PREFIX = "narrowboat-dead-"


class Kind(enum.StrEnum):
    """What an address names."""

    QUEUE = "queue"  #: point to point; messages are kept until they are consumed, also before the first consumer comes
    TOPIC = "topic"  #: every group that exists gets its own copy; without groups what is sent is dropped
    SUBSCRIPTION = "subscription"  #: one group of one topic; only a redrive sends here
    INBOX = "inbox"  #: where replies to one process go; gone with it, and what is sent then is dropped without an error


class Address(NamedTuple):
    """Where messages go to or come from."""

    kind: Kind
    name: str
    group: str = ""  #: of a subscription

    @property
    def path(self) -> str:
        """The name in the backend: `orders`, `prices`, `prices.g`. Queues, topics and subscriptions share one namespace.

        So a queue `prices.g` and the subscription `g` of `prices` are one name: whoever comes second gets `Conflict`.

        >>> Address(Kind.SUBSCRIPTION, "prices", "g").path
        'prices.g'
        """
        return f"{self.name}.{self.group}" if self.group else self.name

    @property
    def dead(self) -> Address:
        """The queue that takes this source's dead letters.

        >>> Address(Kind.QUEUE, "orders").dead.path
        'orders.dead'
        """
        return Address(Kind.QUEUE, f"{self.path}.dead")


class Properties(NamedTuple):
    """What is stored with a source at its first declare.

    `ordered` and `priorities` say how its messages lie: a later declare that disagrees is refused with `Conflict`. `lease` and
    `max_deliveries` are each consumer's own, and what is stored of them is for consumers that ask for none. Where `alter` is
    not claimed a driver may refuse those as well.
    """

    lease: float = 30.0  #: seconds that a delivery is ours
    max_deliveries: int = 5  #: the core rejects what was handed out this often; 0 means never (dead letters)
    ordered: bool = False  #: messages of one key one at a time, in order
    priorities: int = 0  #: levels above 0; a higher number goes first


class Source(NamedTuple):
    """A queue or subscription with its properties."""

    address: Address
    properties: Properties


class Outgoing(NamedTuple):
    """One message on its way out. Every field has passed the core's checks.

    Names, ids and keys are of 1 to 1,000 characters without control characters, so without NUL, and without halves of surrogate
    pairs; a body is any bytes.
    """

    to: Address
    id: str
    body: bytes
    headers: Mapping[str, str]
    key: str | None
    published_at: float  #: seconds since the epoch, for people and for ages
    delay: float  #: seconds; 0 means at once
    priority: int
    ttl: float | None  #: seconds from now, after which the message must not be delivered
    correlation_id: str | None
    content_type: str | None
    reply_to: Address | None
    dedup: bool  #: the id was given by the caller: within the window, a second one of that id is dropped
    #: The `tag` of the driver's own delivery that this repeats (a redrive), so that it keeps what the core has no field for:
    #: types of headers, properties of other programs. None for all else; a driver may leave it aside.
    origin: object = None


@dataclasses.dataclass(frozen=True, slots=True)
class Receipt:
    """The broker has it, at its declared durability."""

    id: str
    duplicate: bool = False  #: dropped: a message of that id was published to the same address within the window


class Delivery(NamedTuple):
    """One message handed out to us, for one lease."""

    id: str
    body: bytes
    headers: Mapping[str, str]
    key: str | None
    attempt: int  #: claims so far, this one included; starts at 1
    published_at: float | None
    priority: int
    expires_in: float | None  #: seconds of its ttl that were left when it was received; None: no ttl
    correlation_id: str | None
    content_type: str | None
    reply_to: Address | None
    tag: object  #: the driver's own: what it needs to settle this delivery and no other
    #: What is wrong with it, in a sentence, where another program wrote what the driver cannot take apart: `body` is then what
    #: could be read, as it was. Empty for every message that is whole. The core tells listeners and the log.
    malformed: str = ""
    #: Why no handler may have it, in a sentence: the core rejects it at once, with this as the reason. Drivers leave it empty;
    #: a layer sets it for what it cannot open.
    refused: str = ""


class Received(NamedTuple):
    """The answer of a feed."""

    deliveries: list[Delivery]
    retry_after: float  #: seconds; when nothing came, look again after this at the latest, whether or not woken


class Ack(NamedTuple):
    """Done: it is never redelivered."""


class Nack(NamedTuple):
    """Not done: it is redelivered to any consumer, not before the delay.

    A message that expires before that is gone, and where order is kept the next of its key goes on.
    """

    delay: float = 0.0


class Reject(NamedTuple):
    """To the dead letters, with body, headers, key and id, and three headers of ours: why, how often, from where.

    The driver adds `narrowboat-dead-reason`, `narrowboat-dead-attempts` and `narrowboat-dead-origin` (the source's path)
    to the headers. A source that has no dead letters (a `.dead` queue, an inbox) drops it. A dead letter has no ttl and no
    delay any more. They are kept in the order in which they died, whatever the priority, and made whatever `?declare` says.
    """

    reason: str
    attempts: int  #: how often it was handed to a handler


class Return(NamedTuple):
    """Not started: it goes back to its place at once, and where `uncounted_release` is claimed this claim is not counted."""


Outcome = Ack | Nack | Reject | Return


@dataclasses.dataclass(frozen=True, slots=True)
class Depth:
    """How many messages a source has, and for how long the oldest has waited. None where the backend cannot know."""

    ready: int | None
    in_flight: int | None
    delayed: int | None
    dead: int | None
    #: Seconds for which the oldest ready message has waited: since it was published, or became due where it was delayed. None
    #: where none is ready, and always where the claim `oldest` is absent. Two depths of the same counts are equal.
    oldest: float | None = dataclasses.field(default=None, compare=False)


class Feed(ABC):
    """One consumer's stream from one source."""

    @abstractmethod
    def receive(self, limit: int) -> Received:
        """Claim up to `limit` messages that are due. Never waits.

        The claim is counted (`Delivery.attempt`) in the same step, before any handler runs. If there was no message, `wake` was
        armed *before* the last look. An expired message is dropped, never delivered.
        """

    @abstractmethod
    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        """Settle each delivery; None for each that is settled, once the backend has answered.

        `StaleDelivery` where it is no longer ours (its lease ended, another consumer has it): nothing was touched.
        """

    @abstractmethod
    def extend(self, deliveries: Sequence[Delivery], seconds: float) -> list[NarrowboatError | None]:
        """Let each lease end `seconds` from now. `StaleDelivery` where it is no longer ours; it is not revived.

        Only called where `capabilities.extension` is claimed, which needs `capabilities.lease` to be `MESSAGE`.
        """

    def use(self, properties: Properties) -> None:  # noqa: B027  # most leases hang on something else
        """Claim with the lease of `properties` from now on: what is stored was altered. The rest of them is as it was.

        Only called where `alter` is claimed, in the place of a `receive`, and perhaps repeated.
        """

    def current(self, delivery: Delivery) -> bool:
        """Whether the claim of `delivery` can still stand, as far as this feed has heard. True unless it has heard otherwise.

        For a driver whose deliveries end with something else than a lease of their own: its connection, its membership. The
        core asks before each hand-out of what it has buffered, so that no handler gets a message that another consumer has
        by now. No I/O, no lock that a call of the driver is made under, a few hundred nanoseconds; from any thread.
        """
        return True

    def leave(self) -> None:  # noqa: B027  # most have nothing to do
        """Take nothing more. What was received stays ours, to be settled and extended, until `close`. Idempotent.

        For a driver that is pushed to: what came and was never received goes back now, uncounted where that is claimed,
        and not only when the last handler is done. One that claims in `receive` alone has nothing to do.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop. Unsettled deliveries go back at once, counted. Idempotent."""


class Broker(ABC):
    """One connection's worth of messages. Thin, blocking; see the module's text for threads, time-outs and retries."""

    capabilities: BrokerCapabilities

    @abstractmethod
    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        """Store each message; one answer for each, in order, once the backend has confirmed it.

        A queue or topic that does not exist is made. With `?declare=never` in the URL its messages are answered with `NotFound`
        instead. A delayed message for a topic goes to the groups that exist when it is due.
        """

    def enlist(self, connection: Any, message: Outgoing) -> Awaitable[object] | None:
        """Store `message` in the transaction that `connection` is in, which is the caller's: there if and when it is committed.

        Only called where `capabilities.outbox` is claimed, after a `ping` that was answered, in the caller's thread or on its
        event loop. The only I/O is what the connection is asked to do. Returns what an asynchronous one gives to be awaited,
        None otherwise. What the connection raises is raised as it is; `InvalidArgument` for one that the driver cannot use.
        """
        raise NotImplementedError

    @abstractmethod
    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        """A feed from `source`, which is declared first (unless `?declare=never`).

        With `?declare=never` a source that is not there is `NotFound`: from here, or from the first `receive` where only that
        one asks the server.

        When this returns, every message published from then on reaches the source. `earliest`: a subscription made now
        begins with what the topic still has; only asked for where `replay` is claimed. `wake` may be called from any
        thread, may be spurious, and never blocks.
        """

    @abstractmethod
    def inbox(self, wake: Callable[[], None]) -> tuple[Address, Feed]:
        """A private address for replies, and the feed that reads it. It is gone when the feed is closed or we die.

        The core makes one for a face, at the first request, and receives from it only while somebody waits for a reply.
        """

    def is_inbox(self, address: Address) -> bool:
        """Whether `address` is an inbox as `inbox` makes them, in whichever process: a reply goes there and nowhere else.

        The address was read from a message, so the publisher chose its text. A driver that makes an address of any
        text compares the name with the shape of its own (`narrowboat.inbox.` and 32 hexadecimal digits): otherwise a request
        could have its worker publish wherever that worker may. No I/O.
        """
        return address.kind is Kind.INBOX

    @abstractmethod
    def declare(self, source: Source, *, earliest: bool) -> None:
        """Make the queue, topic or subscription if it is not there. Idempotent. `Conflict` where it is there and differs.

        With `?declare=never` nothing is made: `NotFound` where it is not there.

        A topic has no properties of its own: `source.properties` is then ignored.
        """

    def stored(self, address: Address) -> Properties | None:
        """What a queue or subscription was declared with, or altered to. None where it is not there, or was never declared.

        Only called where `alter` is claimed: when a consumer is opened that asks for no lease or limit of its own, and again
        while it runs, so it is cheap.
        """
        raise NotImplementedError

    def alter(self, address: Address, *, lease: float | None, max_deliveries: int | None) -> Properties:
        """Store another lease or limit with a declared queue or subscription, and leave what is None. What is stored then.

        No message is touched. `NotFound` where it is not there or was never declared; nothing is made. Only called where
        `alter` is claimed.
        """
        raise NotImplementedError

    def sources(self) -> list[Address]:
        """The queues, topics and subscriptions of this namespace that are there now, without inboxes and dead letters.

        Only called where `listing` is claimed. In any order.
        """
        raise NotImplementedError

    @abstractmethod
    def delete(self, address: Address) -> bool:
        """Remove it with all its messages, a topic with all its subscriptions. False when it was not there.

        Its dead letters stay: they are a queue of their own, `Address.dead`, and go when that is deleted.
        """

    @abstractmethod
    def purge(self, address: Address) -> int:
        """Drop the messages that are ready or delayed, not those in flight. Returns how many."""

    @abstractmethod
    def depth(self, address: Address) -> Depth:
        """How many messages a queue or subscription has; `dead` counts its dead letters.

        Where `oldest` is claimed it is told by the clock that stored the messages, and 0 where that went back. It costs a look
        at the first message of each priority and not at those behind it. It belongs to a message that `ready` counts. One
        that came back keeps its age, unless a delay gave it another place in the order.
        """

    @abstractmethod
    def ping(self) -> None:
        """One round trip. Raises what a call would raise."""

    @abstractmethod
    def close(self) -> None:
        """Close every feed, give back threads, sockets, files. Idempotent."""
