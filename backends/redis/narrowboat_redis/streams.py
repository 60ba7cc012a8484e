"""The keys of an address: its stream under its clear name, and the root of all its other keys. Pure.

A queue `orders` is the stream `orders` (with a prefix `shop:orders`), so that other programs find it under its name. Its other
keys begin with a root, whose hash tag is the first part of its path. Its dead letters have the same tag, and so have all groups
of a topic. One script may therefore touch them all, in a cluster too. There a stream whose path has dots is called
`{shop}.orders`, because `shop.orders` lies in another slot.
"""

from __future__ import annotations

from typing import NamedTuple

from narrowboat.contract import Address, Kind
from narrowboat.driver.names import fit
from narrowboat.driver.sources import has_dead_letters
from narrowboat_redis.options import SAFE, tag

#: The beginning of all our own keys.
OURS = b"nb:m:"
#: The group that reads a queue's stream.
GROUP = b"narrowboat"
#: Bytes of one part of a path. A longer part is hashed.
_LONGEST = 180
#: Seconds that an inbox lives after its last heartbeat.
INBOX_TTL = 60.0


class StreamKeys(NamedTuple):
    """One address's keys. `all` is what every script gets, in this order."""

    kind: Kind
    path: str
    group: bytes  #: that reads the stream
    root: bytes
    stream: bytes
    all: tuple[bytes, ...]  #: root and stream, then those of the topic (of itself where there is none)
    dead_stream: bytes  #: of its dead letters; its own where it has none
    channels: tuple[bytes, ...]  #: on which something is told that concerns whoever reads it


def stream_keys(address: Address, prefix: str, *, cluster: bool) -> StreamKeys:
    """The keys of `address`.

    >>> stream_keys(Address(Kind.SUBSCRIPTION, "prices", "g"), "", cluster=False).all
    (b'nb:m:{prices}.g', b'prices.g', b'nb:m:{prices}', b'prices')
    >>> stream_keys(Address(Kind.QUEUE, "orders.dead"), "shop", cluster=True).all[:2]
    (b'nb:m:{shop:orders}.dead', b'{shop:orders}.dead')
    """
    kind, path = address.kind, address.path
    root, stream = _keys(path, prefix, cluster)
    above = (root, stream)
    group = GROUP
    channels: tuple[bytes, ...] = (root,)
    if kind is Kind.SUBSCRIPTION:
        above = _keys(address.name, prefix, cluster)
        group, channels = part(address.group), (root, above[0])
    dead = _keys(address.dead.path, prefix, cluster)[1] if has_dead_letters(address) else stream
    return StreamKeys(kind, path, group, root, stream, (root, stream, *above), dead, channels)


def own_stream_prefix(keys: StreamKeys, *, cluster: bool) -> bytes:
    """The beginning of the streams of a topic's groups; the group's name follows."""
    return (keys.root.removeprefix(OURS) if cluster else keys.stream) + b"."


def part(text: str) -> bytes:
    """One part of a path as a part of a key: as it is where that is possible, else quoted, and hashed when it is long.

    >>> part("orders"), part("a b"), len(part("x" * 1000))
    (b'orders', b'a%20b', 66)
    """
    return fit(tag(text).decode(), SAFE + "%", _LONGEST, "%~").encode("ascii")  # no quoted text has a ~ behind a %


def _keys(path: str, prefix: str, cluster: bool) -> tuple[bytes, bytes]:
    """The root and the stream of a path."""
    # A leading dot belongs to the first part: an empty hash tag is none.
    first, dot, rest = path[1:].partition(".")
    stem = part(path[:1] + first)
    if prefix:
        stem = tag(prefix) + b":" + stem
    behind = b"." + b".".join(map(part, rest.split("."))) if dot else b""
    return OURS + b"{" + stem + b"}" + behind, b"{" + stem + b"}" + behind if cluster and dot else stem + behind
