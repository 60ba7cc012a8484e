"""The keys of a server or cluster that look like ours: page by page, so that nobody waits while many are looked through."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from narrowboat_redis.client import RedisClient
from narrowboat_redis.errors import translate
from narrowboat_redis.scripts import Packed, command


def keys_like(client: RedisClient, pattern: bytes, doing: str) -> Iterator[bytes]:
    """The keys that match, some of them twice: of the server, or of each primary of a cluster."""
    pages = client.everywhere(_scan(b"0", pattern), doing=doing)
    while pages:
        following: list[tuple[Any, Any]] = []
        for address, reply in pages:
            if not isinstance(reply, list):
                raise translate(reply, client.endpoint, doing=doing)
            yield from reply[1]
            if reply[0] != b"0":
                following.append((address, client.at(address, _scan(reply[0], pattern), doing=doing)))
        pages = following


def _scan(cursor: bytes, pattern: bytes) -> Packed:
    return command(None, b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"1000")
