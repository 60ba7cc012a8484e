"""Checks that a server is as durable as the URL says: once, before anything is stored."""

from __future__ import annotations

from typing import Any

from narrowboat.capabilities import Survives
from narrowboat.errors import ConfigurationError, NarrowboatError
from narrowboat_redis.client import RedisClient
from narrowboat_redis.endpoint import RedisEndpoint
from narrowboat_redis.errors import translate
from narrowboat_redis.options import SCHEME, Durability
from narrowboat_redis.resp import ErrorReply
from narrowboat_redis.scripts import command

#: What survives of confirmed data, by durability.
SURVIVES = {Durability.MEMORY: Survives.NOTHING, Durability.AOF: Survives.CRASH, Durability.FSYNC: Survives.POWER}


def check_durability(client: RedisClient, endpoint: RedisEndpoint, wanted: Durability, ends: float) -> None:
    """Raise unless every server that holds data is as durable as `wanted`; until `ends` by `time.monotonic`."""
    if wanted is Durability.MEMORY:
        return
    doing = "asking whether it keeps its data"
    for address, answer in client.everywhere(command(None, b"INFO", b"persistence"), doing=doing, ends=ends):
        server = f"{endpoint}" if address is None else f"{endpoint}, {address}"
        facts = _good(answer, endpoint, doing)
        if b"loading:1" in facts.split():
            # 7.0 says meanwhile that it keeps no file.
            raise translate(ErrorReply("LOADING it is loading its data"), endpoint, doing=doing)
        if b"aof_enabled:1" not in facts:
            raise ConfigurationError(
                f"{server}: the URL says durability={wanted.value}, and the server keeps no append-only file. Set "
                "appendonly yes there, or say durability=memory and lose the messages with the server.",
                backend=SCHEME,
            )
    if wanted is Durability.AOF:
        return
    for address, answer in client.everywhere(command(None, b"CONFIG", b"GET", b"appendfsync"), doing=doing, ends=ends):
        found = _good(answer, endpoint, doing)
        if b"always" not in found:
            server = f"{endpoint}" if address is None else f"{endpoint}, {address}"
            raise ConfigurationError(
                f"{server}: the URL says durability=fsync, and the server has appendfsync {b' '.join(found[1:]).decode()}. Set "
                "appendfsync always there, or say durability=aof.",
                backend=SCHEME,
            )


def _good(answer: Any, endpoint: RedisEndpoint, doing: str) -> Any:
    if isinstance(answer, ErrorReply | NarrowboatError):
        raise translate(answer, endpoint, doing=doing)
    return answer
