"""What an address is called on the server, and what a queue is declared with. Pure.

A queue `orders` is the queue `orders` (with a prefix `shop:orders`), so that other programs meet it under its name; the
subscription `g` of the topic `prices` is the queue `prices.g`, bound to the fanout exchange `prices`. Queues and exchanges
have a namespace each on the server, and the two must share one: so a queue has an exchange of its own name as well, to
which nothing is bound and whose type says what the name stands for. Whoever declares the name as something else is
refused by the server itself.

A server forgets arguments of a queue that it does not know, but keeps and compares the alternate exchange of an exchange.
So what a source is declared with is kept as that of a second exchange, `narrowboat.properties:orders`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from narrowboat.contract import Address, Kind, Properties
from narrowboat.driver.names import digest, escape_all
from narrowboat_rabbitmq.options import Options, QueueType

#: What every name of our own begins with. Names of users never do.
OURS = "narrowboat."
#: Bytes that the server takes for a name or a routing key.
_MOST = 255
#: Bytes of a name that are kept; longer ones are hashed. A name has to share a routing key with the words of the ladder (50
#: bytes), or a name with a prefix, a group and what it ends in.
LONGEST = 150
#: How often a quorum queue may be given back a message before the server drops it: as often as it can count. The core
#: counts against its own limit. 0 or -1 would say "never" to some servers and "at once" to others (3.10 drops the message
#: at its first return), and saying nothing means 20 from 4.0 on.
NO_LIMIT = 2**31 - 1

_WRITTEN = f"{OURS}properties;"
#: The type of the exchange that stands for a name, by what the name is.
STANDS_FOR = {Kind.QUEUE: "direct", Kind.SUBSCRIPTION: "headers", Kind.TOPIC: "fanout"}
KIND_OF = {name: kind for kind, name in STANDS_FOR.items()}


class Route(NamedTuple):
    """Where one address lies on the server, and how a message gets there."""

    address: Address
    path: str  #: the address as the user knows it
    name: str  #: of the queue, and of the exchange that stands for it; of the exchange, for a topic
    topic: str  #: the exchange that a subscription is bound to
    word: str  #: its name as one word of a routing key
    exchange: str  #: where to publish
    routing_key: str
    mandatory: bool  #: a message that reaches nobody is an error


def route_of(address: Address, prefix: str) -> Route:
    """The route to `address`.

    >>> route_of(Address(Kind.SUBSCRIPTION, "prices", "g"), "shop").name
    'shop:prices.g'
    >>> route_of(Address(Kind.QUEUE, "two words"), "").name
    'two%20words'
    """
    kind, path = address.kind, address.path
    if kind is Kind.INBOX:  # its name is the server's or another program's, and says everything
        return Route(address, path, address.name, "", "", "", address.name, False)
    front = f"{escape(prefix)}:" if prefix else ""
    name = topic = _fit(front + escape(address.name), len(front))
    if kind is Kind.SUBSCRIPTION:
        name = _fit(f"{topic}.{escape(address.group)}", len(front))
    if kind is Kind.TOPIC:
        return Route(address, path, name, topic, word(name), name, "", False)
    return Route(address, path, name, topic, word(name), "", name, True)


def escape(text: str) -> str:
    """`text` as (a part of) a name. What others would write the same way stays as it is; two texts never meet.

    >>> escape("orders.v2"), escape("Füße"), escape("amq.topic")
    ('orders.v2', 'F%C3%BC%C3%9Fe', '%61mq.topic')
    >>> len(escape("x" * 300))
    130
    """
    name = escape_all(text, "-_.")
    if name.startswith(("amq.", OURS)):  # the server's own names, and ours
        name = f"%{ord(name[0]):02X}{name[1:]}"
    if len(name) > LONGEST:
        # No escaped name has a `~`, so no other name looks like this one.
        return f"{name[:65].rpartition('%')[0] or name[:65]}~{digest(text)}"
    return name


def _fit(name: str, front: int, longest: int = _MOST) -> str:
    """`name`, or its first characters with a `~` and its hash where it is longer than `longest`.

    The first characters hold the prefix, `front` characters: rights are given by that.
    """
    return name if len(name) <= longest else f"{name[: max(LONGEST, front)]}~{digest(name)}"


def word(name: str) -> str:
    """A name as one word of a routing key: without dots, or `b` would get what is for `a.b`.

    >>> word("prices.g")
    'prices%2Eg'
    """
    made = name.replace(".", "%2E")
    return made if len(made) <= _MOST - 51 else f"~{digest(name)}"


def properties_exchange(name: str) -> str:
    """The exchange that keeps what the source `name` was declared with."""
    kept = f"{OURS}properties:"
    return kept + _fit(name, name.find(":") + 1, _MOST - len(kept))


def queue_arguments(options: Options) -> dict[str, object]:
    """What a queue of ours is declared with."""
    if options.queue_type is QueueType.CLASSIC:
        levels: dict[str, object] = {"x-max-priority": options.priorities} if options.priorities else {}
        return {"x-queue-type": "classic", **levels}
    return {"x-queue-type": "quorum", "x-delivery-limit": NO_LIMIT}


def write(properties: Properties) -> str:
    """The properties as text. It begins like a name of ours, because the server asks whether we may write to what it names.

    >>> write(Properties())
    'narrowboat.properties;lease=30;max_deliveries=5;ordered=0;priorities=0'
    """
    lease, deliveries, ordered, priorities = properties
    return f"{_WRITTEN}lease={lease:.15g};max_deliveries={deliveries};ordered={ordered:d};priorities={priorities}"


def read_stored(text: str) -> tuple[dict[str, float], bool]:
    """The properties in a server's text, and whether those are all: the text may be cut off at any point.

    >>> read_stored("but current is 'narrowboat.properties;lease=30;max_deliv...")
    ({'lease': 30.0}, False)
    """
    _, _, told = text.rpartition(f"current is '{_WRITTEN}")
    pairs = [each.partition("=") for each in re.findall(r"(\w+=[\d.e+]+)[;']", told)]
    found = {name: float(value) for name, _, value in pairs if name in Properties._fields}
    return found, len(found) == len(Properties._fields)
