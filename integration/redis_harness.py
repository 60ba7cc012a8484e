"""What the conformance kit can do to a Redis server beyond its connections: fill it, take rights away, delete keys.

Everything here is done with redis-py as an operator would; of Narrowboat's own it takes the names of keys alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import redis

from integration.servers import RedisServer
from narrowboat.conformance import Harness
from narrowboat.dsn import Url
from narrowboat_redis.names import NameKeys
from narrowboat_redis.options import tag

#: Values of a holder's field that no holder of ours has: half of one, text, numbers that are none or too large, no text at all.
DAMAGED = [b"", b"theirs", b"1 2", b"-1 99999999999999 30000 x 0 l", b"1" * 400 + b" 99999999999999 30000 x 0 l", b"\0\xff"]
DAMAGED += [b"17 99999999999999 30000 q 0 label", b"17 inf 30000 x 0 label", b"17 " + b"9" * 400 + b" 30000 x 0 label"]

#: Entries that another program can add to a stream of ours.
STRANGE: dict[str, dict[bytes, bytes]] = {
    "one field": {b"data": b"hello"},
    "a body and fields of our old names": {b"body": b"x", b"id": b"7", b"type": b"t", b"expires": b"1700000000"},
    "a zero byte in a name": {b"body": b"x", b"a\0b": b"y"},
    "names that are no text": {b"\xff\xfe": b"\xff", b"": b""},
    "deep headers": {b"body": b"x", b"narrowboat-headers": b"[" * 100_000},
    "headers that are none": {b"body": b"x", b"narrowboat-headers": b'{"a": 1}'},
    "half a character": {b"body": b"x", b"narrowboat-headers": b'{"a":"\\ud800"}'},
    "a deep address for replies": {b"body": b"x", b"narrowboat-reply": b"[" * 100_000},
    "a priority without end": {b"body": b"x", b"narrowboat-priority": b"inf"},
    "a time that is none": {b"body": b"x", b"narrowboat-at": b"nan"},
    "an end that is none": {b"body": b"x", b"narrowboat-expires": b"-1"},
    "a key that is no text": {b"body": b"x", b"narrowboat-key": b"\xff"},
    "an empty id": {b"body": b"x", b"narrowboat-id": b""},
    "very many fields": {b"f%d" % number: b"" for number in range(9000)},
    "a body of a megabyte": {b"body": b"x" * 1_000_000},
}


class RedisHarness(Harness):
    """For one server that the harness may do anything to."""

    def _client(self) -> redis.Redis:
        server = self.server
        assert isinstance(server, RedisServer)
        client: redis.Redis = server.client()
        return client

    def residue(self, namespace: str) -> int:
        """Keys of the namespace that belong to a name.

        The tokens of its shards stay for ever, a provider's signs of life for 5 s, tombstones of owners for 30 s.
        """
        with self._client() as client:
            found = [key for key in _keys(client, namespace) if not key.endswith((":token", ":alive")) and ":gone:" not in key]
        return len(found)

    def cleanup(self, namespace: str) -> None:
        with self._client() as client:
            for key in _keys(client, namespace):
                client.delete(key)

    def delete(self, half: str, namespace: str, name: str) -> None:
        letter = "l" if half == "locks" else "m"
        with self._client() as client:
            for key in _keys(client, namespace):
                ours = key.startswith(f"nb:{letter}:") and name in key.partition("}")[0 if half == "broker" else 2]
                if ours or (half == "broker" and key == f"{namespace}:{name}"):
                    client.delete(key)

    def plant_record(self, namespace: str, name: str, kind: int) -> bool:
        """A holder that is not ours, among the holders or in place of them."""
        keys = NameKeys(tag(namespace), name)
        if kind > len(DAMAGED):
            return False
        with self._client() as client:
            if kind == len(DAMAGED):
                client.rpush(keys.held, "a list")
            else:
                client.hset(keys.held, "theirs", DAMAGED[kind])
        return True

    def plant_entries(self, namespace: str, name: str) -> list[tuple[str, Callable[[], object]]]:
        return [(label, partial(self._add, f"{namespace}:{name}", fields)) for label, fields in STRANGE.items()]

    def _add(self, stream: str, fields: dict[bytes, bytes]) -> None:
        with self._client() as client:
            client.xadd(stream, fields)

    def fill(self) -> None:
        with self._client() as client:
            client.config_set("maxmemory", "1")
            client.config_set("maxmemory-policy", "noeviction")

    def drain(self) -> None:
        with self._client() as client:
            client.config_set("maxmemory", "0")

    def revoke(self) -> None:
        self._acl("-@all")

    def permit(self) -> None:
        self._acl("+@all")

    def _acl(self, rights: str) -> None:
        user = Url.parse(self.url).username or "default"
        rule = [rights] if rights == "+@all" else [rights, "+acl"]  # so that it can be given back
        with self._client() as client:
            client.execute_command("ACL", "SETUSER", user, *rule)


def _keys(client: Any, namespace: str) -> list[str]:
    """Ours, and the streams of queues and topics, which stand under their own names."""
    ours = [key for key in client.scan_iter(match="nb:*", count=1000) if f"{{{namespace}:" in key or f":{namespace}:" in key]
    return [*ours, *client.scan_iter(match=f"{namespace}:*", count=1000)]
