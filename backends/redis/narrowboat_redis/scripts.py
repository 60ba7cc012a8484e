"""Lua scripts from the folder `lua`: called by their hash, and loaded where a server does not know them.

A script consists of its own file behind the files that it needs. Calling it makes a `Packed`, which `RedisClient` sends.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Sequence
from typing import NamedTuple

from narrowboat_redis.resp import pack, pack_arguments

_FOLDER = os.path.join(os.path.dirname(__file__), "lua")


class Packed(NamedTuple):
    """A command in the protocol's bytes."""

    data: bytes
    key: bytes | None  #: whose node it goes to in a cluster; None: any
    script: Script | None = None  #: to be loaded where the server does not know it


class Script:
    """One script, known by its hash."""

    def __init__(self, source: bytes) -> None:
        self.source = source
        self.sha = hashlib.sha1(source, usedforsecurity=False).hexdigest().encode()
        self.load_command = pack(b"SCRIPT", b"LOAD", source)

    def head(self, keys: int, arguments: int) -> bytes:
        """The beginning of a call with that many keys and arguments, which come behind it, packed."""
        return b"*%d\r\n" % (3 + keys + arguments) + pack_arguments((b"EVALSHA", self.sha, b"%d" % keys))

    def __call__(self, keys: Sequence[bytes], arguments: Sequence[bytes]) -> Packed:
        """A call with those keys and arguments. It goes to the node of the first key."""
        head = self.head(len(keys), len(arguments))
        return Packed(head + pack_arguments(keys) + pack_arguments(arguments), keys[0], self)


@functools.cache
def script(*files: str) -> Script:
    """The script in the last of `files`, behind the definitions of the others."""
    parts = []
    for name in files:
        with open(os.path.join(_FOLDER, name), "rb") as file:
            parts.append(file.read())
    return Script(b"\n".join(parts))


def command(key: bytes | None, *arguments: bytes) -> Packed:
    """A plain command; `key` says whose node it goes to in a cluster."""
    return Packed(pack(*arguments), key)
