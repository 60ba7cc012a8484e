"""The keys and channels of the locks, as `locks.lua` describes them, packed once for each name."""

from __future__ import annotations

from binascii import crc_hqx
from urllib.parse import unquote

from narrowboat_redis.options import tag
from narrowboat_redis.resp import pack_arguments

#: Never to be changed: tokens are kept by shard, so a client with another number would share neither tokens nor locks.
SHARDS = 128
#: Names whose packed keys are cached. A program uses few names often, or many names once.
_KEPT = 4096


class NameKeys:
    """The keys of one name, packed as arguments of a command."""

    __slots__ = ("alive", "attempt_head", "attempt_tail", "common", "gone", "held", "queue", "shard", "token", "told")

    def __init__(self, prefix: bytes, name: str) -> None:
        self.shard = crc_hqx(name.encode(), 0) % SHARDS
        base = b"nb:l:{%b:%d}:" % (prefix, self.shard)
        quoted = tag(name)
        self.held = base + b"held:" + quoted
        self.queue = base + b"queue:" + quoted
        self.told = base + b"told:" + quoted
        self.token = base + b"token"
        self.alive = base + b"alive"
        self.gone = base + b"gone:"  #: an owner comes behind it
        self.attempt_head = pack_arguments((self.held, self.queue))
        self.attempt_tail = pack_arguments((self.token, self.told, self.alive))
        self.common = pack_arguments((self.held, self.queue, self.told, self.alive))


class Keys:
    """The keys of one namespace."""

    def __init__(self, prefix: str) -> None:
        self._prefix = tag(prefix)
        self._names: dict[str, NameKeys] = {}
        self.channel = b"nb:l:%b:wake:" % self._prefix  #: a provider's id comes behind it
        self.pattern = b"nb:l:{%b:*}:*" % self._prefix
        self.probe = b"nb:l:{%b:0}:gone:-" % self._prefix

    def of(self, name: str) -> NameKeys:
        """The keys of that name, from the cache where it has them."""
        keys = self._names.get(name)
        if keys is None:
            keys = NameKeys(self._prefix, name)
            if len(self._names) >= _KEPT:
                self._names.clear()
            self._names[name] = keys
        return keys

    def name_of(self, key: bytes) -> str | None:
        """The name whose `held` or `queue` that is; None where it is another key.

        >>> Keys("shop").name_of(NameKeys(b"shop", "a:b").held)
        'a:b'
        """
        what, _, quoted = key.partition(b"}:")[2].partition(b":")
        if what not in (b"held", b"queue") or not quoted.isascii():
            return None
        try:
            name = unquote(quoted.decode(), errors="strict")
        except UnicodeDecodeError:
            return None
        keys = NameKeys(self._prefix, name)  # a key that we would not make of that name is foreign
        return name if key in (keys.held, keys.queue) else None
