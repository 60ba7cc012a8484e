"""What is stored under the names of locks, for people: their holders, foreign data, and how to remove either.

It has a connection of its own and reads page by page, so that neither this process's renewals nor the server wait while an
operator looks at everything. A record that cannot be parsed is shown as foreign. Its token is made of its content, so it stays
the same for as long as the record does.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from narrowboat.contract.locks import Holder, Mode
from narrowboat_redis.client import RedisClient
from narrowboat_redis.endpoint import RedisEndpoint
from narrowboat_redis.errors import translate
from narrowboat_redis.names import Keys, NameKeys
from narrowboat_redis.scanning import keys_like
from narrowboat_redis.scripts import Packed, script

LETTERS = {Mode.EXCLUSIVE: b"x", Mode.SHARED: b"r", Mode.SEMAPHORE: b"s"}
MODES = {letter: mode for mode, letter in LETTERS.items()}

EVICT = script("locks.lua", "evict.lua")
HOLDERS = script("locks.lua", "holders.lua")

#: Names asked for in one exchange.
_TOGETHER = 200
#: As in locks.lua.
_RECORD = re.compile(rb"(\d{1,16}) (\d{1,15}) \d{1,15} ([xrs]) (\d{1,15}) (.*)", re.DOTALL)


class Record(NamedTuple):
    """One record under a name. Without an owner it is a whole key, and `value` says which."""

    holder: Holder
    owner: bytes
    value: bytes


class Records:
    """See the module's text. From any thread; one look at a time."""

    def __init__(self, endpoint: RedisEndpoint, keys: Keys, timeout: float) -> None:
        self._endpoint = endpoint
        self._keys = keys
        self._client = RedisClient(endpoint, timeout)

    def holders(self, name: str | None) -> list[Holder]:
        """The holders whose leases run by the server's clock, by token. Without a name it scans all keys of the server."""
        names = [name] if name is not None else sorted(self._names())
        found: list[Holder] = []
        for start in range(0, len(names), _TOGETHER):
            for records in self._records(names[start : start + _TOGETHER]):
                found += sorted((record.holder for record in records), key=lambda holder: holder.token)
        return found

    def evict(self, name: str, token: int) -> bool:
        """Break that generation, or remove foreign data. A holder learns of it at its next renewal."""
        keys = self._keys.of(name)
        doing = f"evicting a holder of {name!r}"
        for record in next(self._records([name])):
            if record.holder.token == token:
                text = b"" if record.holder.foreign and not _RECORD.fullmatch(record.value) else b"%d" % token
                gone = keys.gone + record.owner
                arguments = [record.owner, record.value, text, self._keys.channel]
                call = EVICT([keys.held, keys.queue, keys.told, keys.alive, gone], arguments)
                reply = self._client.ask(call, doing)
                if type(reply) is not int:
                    raise translate(reply, self._endpoint, doing=doing)
                if reply:
                    return True
        return False

    def close(self) -> None:
        """End the connection. Idempotent."""
        self._client.close()

    def _names(self) -> set[str]:
        found = map(self._keys.name_of, keys_like(self._client, self._keys.pattern, "looking for holders"))
        return {name for name in found if name is not None}

    def _records(self, names: list[str]) -> Iterator[list[Record]]:
        """The records under each of the names."""
        found: dict[str, dict[bytes, Record]] = {name: {} for name in names}
        asked = [(name, b"0") for name in names]
        while asked:
            calls = [_look(self._keys.of(name), cursor) for name, cursor in asked]
            replies = self._client.run(calls, doing="looking for holders")
            following = []
            for (name, cursor), reply in zip(asked, replies, strict=True):
                if not isinstance(reply, list):
                    raise translate(reply, self._endpoint, doing=f"looking for the holders of {name!r}")
                cursor = reply[2]
                found[name].update((record.owner + record.value, record) for record in _taken_apart(name, reply))
                if cursor not in (b"", b"0"):
                    following.append((name, cursor))
            asked = following
        for records in found.values():
            yield list(records.values())


def _look(keys: NameKeys, cursor: bytes) -> Packed:
    return HOLDERS([keys.held, keys.queue], [cursor])


def _taken_apart(name: str, reply: list[Any]) -> Iterator[Record]:
    """The records in one answer of `holders.lua`."""
    now, waiters, cursor, fields = int(reply[0]), reply[1], reply[2], reply[3]
    for number, what in enumerate((b"held", b"queue")):
        if (cursor == b"", waiters < 0)[number]:
            yield Record(_foreign(name, b"the key of its " + what, waiters, what), b"", what)
    for owner, value in zip(fields[::2], fields[1::2], strict=True):
        matched = _RECORD.fullmatch(value)
        if matched is None:
            yield Record(_foreign(name, value, waiters, owner, value), owner, value)
        elif int(matched[2]) > now:
            yield Record(_holder(name, matched, now, waiters), owner, value)


def _holder(name: str, matched: re.Match[bytes], now: int, waiters: int) -> Holder:
    token, ends, mode, label = int(matched[1]), int(matched[2]), MODES[matched[3]], matched[5]
    try:
        text, foreign = label.decode(), False
    except UnicodeDecodeError:
        text, foreign = label.decode(errors="backslashreplace"), True
    size = int(matched[4]) if mode is Mode.SEMAPHORE else None
    # A token is the time of its grant in microseconds, except where the server's clock was set back.
    return Holder(name, token, text, mode, size, token / 1e6, (ends - now) / 1000, max(waiters, 0), foreign)


def _foreign(name: str, shown: bytes, waiters: int, *parts: bytes) -> Holder:
    # 47 bits are less than any of our tokens, which are times in microseconds.
    token = int.from_bytes(hashlib.sha256(b"\0".join(parts)).digest()[:6], "big") >> 1
    text = shown[:200].decode(errors="backslashreplace")
    return Holder(name, token, text, Mode.EXCLUSIVE, None, 0.0, None, max(waiters, 0), True)
