"""Which topics and groups of the server belong to an address. Pure functions: no two names ever meet.

A queue `orders` is the topic `orders`, read by the group `orders.orders`; a topic `prices` is the topic `prices`, read by
the groups `prices.g`. Programs without Narrowboat find them under these names. With a prefix, `shop--orders`. Names that
the server does not take, or that would collide with one of ours, are written as `--` and hexadecimal digits.
"""

from __future__ import annotations

import hashlib
import re

from narrowboat.contract import Address, Kind
from narrowboat.driver.sources import DEAD

#: Names that are kept as they are.
_PLAIN = re.compile(r"[A-Za-z0-9._-]{1,180}")
#: The group of that name would be the one that keeps what its topic was declared with.
_DECLARED = "declared"
#: Stands between a namespace and a name, and before what had to be written in another way.
_MARK = "--"
#: The longest name that is written out in hexadecimal digits; of longer ones only a hash is kept.
_WRITTEN_MAX = 80
#: The longest name that the server takes, less room for our endings.
_SERVER_MAX = 249 - len(".declared")


def part(text: str, prefix: str) -> str:
    """`text` as the server may see it.

    The server takes `a_b` and `a.b` for one name. Without a prefix names are kept, so that other programs find them, and
    the second one is refused; inside a namespace, where nobody else looks, they are kept apart.

    >>> part("orders", ""), part("a b", ""), part("a_b", "shop"), part("..", "")
    ('orders', '--612062', '--615f62', '--2e2e')
    """
    if _PLAIN.fullmatch(text) and _MARK not in text and text not in (".", "..") and not (prefix and "_" in text):
        return text
    data = text.encode("utf-8")
    return _MARK + (data.hex() if len(data) <= _WRITTEN_MAX else hashlib.sha256(data).hexdigest())


def _whole(prefix: str, *parts: str) -> str:
    name = ".".join(parts)
    whole = f"{prefix}{_MARK}{name}" if prefix else name
    if len(whole) > _SERVER_MAX:
        name = _MARK + hashlib.sha256(name.encode()).hexdigest()
        whole = f"{prefix}{_MARK}{name}" if prefix else name
    return whole


def topic(address: Address, prefix: str) -> str:
    """The topic in which the messages of `address` lie; a subscription's lie in its topic's.

    >>> topic(Address(Kind.QUEUE, "orders"), ""), topic(Address(Kind.SUBSCRIPTION, "prices", "g"), "shop")
    ('orders', 'shop--prices')
    """
    stem, dead = (address.name[: -len(DEAD)], True) if address.name.endswith(DEAD) else (address.name, False)
    return _whole(prefix, part(stem, prefix), *(["dead"] if dead else []))


def group(address: Address, prefix: str) -> str:
    """The group that reads a queue or subscription.

    >>> group(Address(Kind.QUEUE, "orders"), ""), group(Address(Kind.SUBSCRIPTION, "prices", "g"), "")
    ('orders.orders', 'prices.g')
    """
    if address.kind is Kind.SUBSCRIPTION:
        name = _MARK + _DECLARED.encode().hex() if address.group == _DECLARED else part(address.group, prefix)
        return _whole(prefix, part(address.name, prefix), name)
    name = topic(address, "")
    return _whole(prefix, name, name)


def retry(address: Address, prefix: str) -> str:
    """The topic in which messages of a queue or subscription wait for their next try.

    >>> retry(Address(Kind.QUEUE, "orders"), ""), retry(Address(Kind.SUBSCRIPTION, "prices", "g"), "")
    ('orders.orders.retry', 'prices.g.retry')
    """
    return group(address, prefix) + ".retry"


def delayed(address: Address, prefix: str) -> str:
    """The topic in which delayed messages of a topic wait; the group that moves them has its name.

    >>> delayed(Address(Kind.TOPIC, "prices"), "")
    'prices.delayed'
    """
    return topic(address, prefix) + ".delayed"


def moving(address: Address, prefix: str) -> str:
    """The topic of which a consumer of `address` moves on what is due, and the group that does so, where one of its own does.

    >>> moving(Address(Kind.SUBSCRIPTION, "prices", "g"), ""), moving(Address(Kind.QUEUE, "orders"), "")
    ('prices.delayed', 'orders.orders.retry')
    """
    return (delayed if address.kind is Kind.SUBSCRIPTION else retry)(address, prefix)


def declared(address: Address, prefix: str) -> str:
    """The group whose committed metadata holds what `address` was declared with.

    >>> declared(Address(Kind.QUEUE, "orders"), ""), declared(Address(Kind.SUBSCRIPTION, "prices", "g"), "")
    ('orders.declared', 'prices.g.declared')
    """
    return (group if address.kind is Kind.SUBSCRIPTION else topic)(address, prefix) + ".declared"
