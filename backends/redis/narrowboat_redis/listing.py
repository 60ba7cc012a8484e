"""Which queues, topics and subscriptions there are, read off the names of their keys.

A part of a path that was too long for a key is hashed there, and cannot be told: a source with such a name is left out. So is a
stream to which no Narrowboat has published.
"""

from __future__ import annotations

from urllib.parse import unquote

from narrowboat.contract import Address, Kind
from narrowboat.driver.sources import DEAD
from narrowboat_redis.client import RedisClient
from narrowboat_redis.options import tag
from narrowboat_redis.scanning import keys_like
from narrowboat_redis.scripts import command
from narrowboat_redis.streams import OURS

_META = b":meta"
_DOING = "looking for queues"
#: Of what these keys say in the field "kind".
_LISTED = {kind.value.encode(): kind for kind in Kind if kind is not Kind.INBOX}
#: Keys that are asked in one exchange.
_TOGETHER = 500


def listed(client: RedisClient, prefix: str) -> list[Address]:
    """What there is in that namespace, without inboxes and dead letters."""
    head = OURS + b"{" + (tag(prefix) + b":" if prefix else b"")
    paths: dict[bytes, str] = {}
    for key in keys_like(client, head + b"*" + _META, _DOING):
        path = path_of(key, head)
        if path is not None and not path.endswith(DEAD):
            paths[key] = path
    keys, found = list(paths), []
    for start in range(0, len(keys), _TOGETHER):
        some = keys[start : start + _TOGETHER]
        kinds = client.run([command(key, b"HGET", key, b"kind") for key in some], doing=_DOING)
        found += [_address(_LISTED[kind], paths[key]) for key, kind in zip(some, kinds, strict=True) if kind in _LISTED]
    return found


def path_of(key: bytes, head: bytes) -> str | None:
    """The path of the source whose key of properties that is; None where it cannot be told, or is another namespace's.

    >>> path_of(b"nb:m:{shop:a%20b}.c:meta", b"nb:m:{shop:"), path_of(b"nb:m:{shop:a}:meta", b"nb:m:{")
    ('a b.c', None)
    """
    stem, closed, behind = key[len(head) : -len(_META)].partition(b"}")
    text = (stem + behind).decode("ascii", "replace")
    if not key.startswith(head) or not closed or b":" in stem or "%~" in text:
        return None
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:  # another program's
        return None


def _address(kind: Kind, path: str) -> Address:
    name, _, group = path.rpartition(".") if kind is Kind.SUBSCRIPTION else (path, "", "")
    return Address(kind, name, group)
