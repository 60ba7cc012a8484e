"""Which topic and which group of the server belong to an address. Pure functions: no two names ever meet.

A queue `orders` is the topic `orders`, read by the group `orders`; a topic `prices` is the topic `prices`, read by the groups
`prices__g`. Programs without Narrowboat find them under these names. The server takes letters, digits and `-_%|` alone: a dot
becomes `__`, so the dead letters of `orders` are `orders__dead`, and every other character `_` and two hexadecimal digits for
each of its bytes. With a prefix, `shop|orders`. What would be too long ends in a hash.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from narrowboat.contract import Address
from narrowboat.driver.names import digest, escape_all

#: The server takes 127 characters for a topic, and makes `%RETRY%<group>_<topic>`, which is a folder's name: of 255 at most,
#: with RocketMQ's namespace twice in it.
_LONGEST = 90


class Place(NamedTuple):
    """Where the messages of an address are."""

    address: Address
    topic: str
    group: str  #: which reads them; of a topic it only says that the name is taken

    @property
    def path(self) -> str:
        """The address's, for the text of an error."""
        return self.address.path

    @property
    def later(self) -> str:
        """The topic of delayed messages: the server has a type for each topic, and delays in those of one type alone."""
        return f"{self.topic}_-later"

    @property
    def topics(self) -> tuple[str, str]:
        """Both topics."""
        return self.topic, self.later


@functools.lru_cache(maxsize=4096)
def place(address: Address, prefix: str) -> Place:
    """Where `address` is.

    >>> from narrowboat.contract import Kind
    >>> place(Address(Kind.QUEUE, "orders"), "")[1:], place(Address(Kind.SUBSCRIPTION, "prices", "g"), "shop")[1:]
    (('orders', 'orders'), ('shop|prices', 'shop|prices__g'))
    """
    return Place(address, name(address.name, prefix), name(address.path, prefix))


def name(path: str, prefix: str) -> str:
    """The name of the server's for a path.

    >>> name("orders.dead", ""), name("a_b c", ""), name("x" * 200, "")[:8]
    ('orders__dead', 'a_5fb_20c', '_-aa20c2')
    """
    whole = _escaped(path)
    if prefix:
        whole = f"{_escaped(prefix)}|{whole}"
    return whole if len(whole) <= _LONGEST else "_-" + digest(whole)


def _escaped(text: str) -> str:
    return "__".join(escape_all(part, "-", escape="_{:02x}") for part in text.split("."))
