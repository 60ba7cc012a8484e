"""Checks that a server is as durable as the URL says: once, before anything is stored."""

from __future__ import annotations

from narrowboat.capabilities import Survives
from narrowboat.driver.endpoint import HostPort
from narrowboat.errors import ConfigurationError
from narrowboat_redis.client import RedisClient
from narrowboat_redis.endpoint import RedisEndpoint
from narrowboat_redis.errors import translate
from narrowboat_redis.options import Durability
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
        if b"loading:1" in answer.split():
            # 7.0 says meanwhile that it keeps no file.
            raise translate(ErrorReply("LOADING it is loading its data"), endpoint, doing=doing)
        if b"aof_enabled:1" not in answer:
            found = "keeps no append-only file. Set appendonly yes there, or say durability=memory and lose the messages with"
            raise _less(endpoint, address, wanted, f"{found} the server.")
    if wanted is Durability.AOF:
        return
    for address, answer in client.everywhere(command(None, b"CONFIG", b"GET", b"appendfsync"), doing=doing, ends=ends):
        if b"always" not in answer:
            found = f"has appendfsync {b' '.join(answer[1:]).decode()}. Set appendfsync always there, or say durability=aof."
            raise _less(endpoint, address, wanted, found)


def _less(endpoint: RedisEndpoint, address: HostPort | None, wanted: Durability, found: str) -> ConfigurationError:
    server = f"{endpoint}" if address is None else f"{endpoint}, {address}"
    return ConfigurationError(
        f"{server}: the URL says durability={wanted.value}, and the server {found}", backend=endpoint.scheme
    )
