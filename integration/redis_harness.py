"""What the conformance kit can do to a Redis server beyond its connections: fill it, take rights away, delete keys.

Everything here is done with redis-py and nothing of Narrowboat's own, as an operator would.
"""

from __future__ import annotations

from typing import Any

import redis

from integration.servers import RedisServer
from narrowboat.conformance import Harness
from narrowboat.dsn import Url


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
