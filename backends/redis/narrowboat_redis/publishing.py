"""Publishing: turns a batch of messages into calls of `send.lua`, and each reply into an answer for each message.

The messages for one address are one script call, or several where their bodies are too large. All calls are one pipeline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from narrowboat.contract import Address, Outgoing, Properties, Receipt
from narrowboat.errors import NarrowboatError, Unavailable
from narrowboat_redis import entries
from narrowboat_redis.client import RedisClient
from narrowboat_redis.errors import translate
from narrowboat_redis.mover import Mover
from narrowboat_redis.properties import refusal
from narrowboat_redis.resp import ErrorReply
from narrowboat_redis.scripts import Packed, script
from narrowboat_redis.streams import StreamKeys

_SEND = script("messages.lua", "upkeep.lua", "send.lua")
#: Bytes of bodies in one script call. A larger call would block the server for too long.
_PART = 4 * 1024 * 1024
#: A publish asks for no properties: it takes the source as it is.
_ANY = Properties(max_deliveries=0)


class Publishing:
    """Sends a broker's messages, over a connection of its own."""

    def __init__(self, client: RedisClient, mover: Mover, auto_declare: bytes, dedup: float) -> None:
        """`auto_declare`: the scripts' argument for it. `dedup`: seconds in which an id counts once."""
        self.client = client
        self._mover = mover
        self._auto_declare = auto_declare
        self._window = b"%d" % round(dedup * 1e6)

    def send(
        self, messages: Sequence[Outgoing], keys_of: Callable[[Address], StreamKeys], signs: Sequence[tuple[StreamKeys, Packed]]
    ) -> list[Receipt | NarrowboatError]:
        """An answer for each message. `signs`: calls that go before them, the heartbeats of the inboxes for their replies."""
        groups: dict[Address, list[int]] = {}
        group, last = [], None
        for index, message in enumerate(messages):
            if message.to is not last:  # a batch has one address, and to hash it costs more than all else here
                last = message.to
                group = groups.setdefault(last, [])
            group.append(index)
        now = time.time()
        calls = [call for _, call in signs]
        parts: list[tuple[StreamKeys, list[int]]] = [(keys, []) for keys, _ in signs]
        for address, indexes in groups.items():
            keys = keys_of(address)
            for part in _parts(messages, indexes):
                calls.append(self._call(keys, [messages[index] for index in part], now))
                parts.append((keys, part))
        replies = self.client.run(calls, doing=f"publishing to {parts[-1][0].path!r}")
        answers: list[Any] = [None] * len(messages)
        for reply, (keys, part) in zip(replies, parts, strict=True):
            found = self._answers(reply, keys, [messages[index] for index in part])
            for index, answer in zip(part, found, strict=True):
                answers[index] = answer
        return answers

    def _call(self, keys: StreamKeys, messages: Sequence[Outgoing], now: float) -> Packed:
        arguments = [keys.kind.value.encode(), keys.group, self._auto_declare, self._window, b"1", b"%d" % len(messages)]
        if all([entries.is_plain(message, now) for message in messages]):  # noqa: C419  # a list is faster
            for message in messages:
                arguments += (message.id.encode(), message.body)
            return _SEND(keys.all, arguments)
        arguments[4] = b""
        for message in messages:
            fields = entries.fields_of(message)
            arguments += (
                b"%d" % len(fields),
                b"%d" % message.priority,
                b"%d" % -(-message.delay * 1e6 // 1),  # rounded up: never early
                b"%d" % (0 if message.ttl is None else max(1, round(message.ttl * 1e6))),
                b"1" if message.dedup else b"",
                message.id.encode(),
                *fields,
            )
            if message.delay:
                self._mover.note(keys, message.delay)
        return _SEND(keys.all, arguments)

    def _answers(self, reply: Any, keys: StreamKeys, messages: Sequence[Outgoing]) -> Sequence[Receipt | NarrowboatError]:
        """The answers to one script call, from its reply."""
        if isinstance(reply, ErrorReply | NarrowboatError):
            return [self._error(reply, keys, message) for message in messages]
        refused = refusal(reply, keys, _ANY, self.client.endpoint)
        if refused is not None:
            return [refused] * len(messages)
        if len(reply) == 1:
            return [Receipt(message.id) for message in messages]
        return [Receipt(message.id, letter == 100) for message, letter in zip(messages, bytes(reply[1]), strict=True)]

    def _error(self, reply: ErrorReply | NarrowboatError, keys: StreamKeys, message: Outgoing) -> NarrowboatError:
        """The error for one message: refused, or unknown where no answer came."""
        found = translate(reply, self.client.endpoint, doing=f"publishing to {keys.path!r}")
        if not isinstance(found, Unavailable):
            return found
        if isinstance(reply, ErrorReply) or not found.sent:
            return self.client.endpoint.refuse.refused(message.id, keys.path, found, retryable=True, cause=found)
        return self.client.endpoint.refuse.unknown(message.id, keys.path, found, dedup=True, cause=found)


def _parts(messages: Sequence[Outgoing], indexes: list[int]) -> list[list[int]]:
    """`indexes`, cut into parts whose bodies fit into one script call."""
    if sum([len(messages[index].body) for index in indexes]) <= _PART:
        return [indexes]
    parts: list[list[int]] = [[]]
    size = 0
    for index in indexes:
        size += len(messages[index].body)
        if size > _PART and parts[-1]:
            parts.append([])
            size = len(messages[index].body)
        parts[-1].append(index)
    return parts
