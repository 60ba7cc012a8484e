"""A Redis cluster of three primaries, each with a third of the slots, without replicas.

with RedisCluster() as cluster:
    narrowboat.locks(cluster.url)          # redis+cluster://127.0.0.1:20001,127.0.0.1:20002,127.0.0.1:20003
    cluster.members[1].kill()              # its third of the names is gone until it is started again
    cluster.move(slot, cluster.members[2]) # makes MOVED answers
"""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import quote

from integration.servers.certificates import Certificates
from integration.servers.group import Group
from integration.servers.ports import LOOPBACK, free_port
from integration.servers.redis import Config, RedisServer

_SLOTS = 16_384


class RedisCluster(Group):
    """Three members with the same password, TLS and further configuration; arguments as for `RedisServer`."""

    name: ClassVar[str] = "redis"

    def __init__(
        self, *, image: str | None = None, password: str | None = None, tls: bool = False, config: Config | None = None
    ) -> None:
        self.password = password
        config = {
            "cluster-enabled": "yes",
            "cluster-node-timeout": "2000",  # milliseconds until a member is given up; 15000 unless told
            **({"tls-cluster": "yes"} if tls else {}),
            **(config or {}),
        }

        def member(tls: bool | Certificates) -> RedisServer:
            bus = {"cluster-port": str(free_port())}
            return RedisServer(image=image, password=password, tls=tls, config={**bus, **config})

        first = member(tls)
        # One authority for all of them: they check each other, and a URL has room for one file.
        self.servers = (first, *(member(first.certificates or False) for _ in range(2)))
        super().__init__(self.servers)

    @property
    def url(self) -> str:
        first = self.servers[0]
        scheme, _, rest = first.url.partition("://")
        who = f":{quote(self.password, safe='')}@" if self.password is not None else ""
        hosts = ",".join(f"{LOOPBACK}:{member.port}" for member in self.servers)
        query = "?" + rest.partition("?")[2] if first.certificates else ""
        return f"{scheme}+cluster://{who}{hosts}{query}"

    def slots(self) -> dict[int, RedisServer]:
        """Each member's slots, as the first member knows them, as slot -> member."""
        owners = {member.port: member for member in self.servers}
        found: dict[int, RedisServer] = {}
        for first, last, address in self._ask(self.servers[0], "CLUSTER", "SLOTS"):
            found |= dict.fromkeys(range(int(first), int(last) + 1), owners[int(address[1])])
        return found

    def move(self, slot: int, to: RedisServer) -> None:
        """Give an empty slot to another member; a client that does not know is answered MOVED."""
        node = self._ask(to, "CLUSTER", "MYID")
        for member in self.servers:
            self._ask(member, "CLUSTER", "SETSLOT", slot, "NODE", node)

    def _form(self) -> None:
        if not all(self._joined(member) for member in self.servers):
            for index, member in enumerate(self.servers):
                # They come back with what they knew; only new ones are without slots and in need of a meeting.
                mine = range(_SLOTS * index // 3, _SLOTS * (index + 1) // 3)
                if not self._has_slots(member):
                    self._ask(member, "CLUSTER", "ADDSLOTS", *mine)
                    self._ask(member, "CLUSTER", "SET-CONFIG-EPOCH", index + 1)
            for member in self.servers[1:]:
                bus = member.option("cluster-port")
                self._ask(self.servers[0], "CLUSTER", "MEET", LOOPBACK, member.port, bus)
        self._until("a cluster in which every member sees all slots served", self._formed)

    def _formed(self) -> bool:
        return all(self._joined(member) and self._info(member)["cluster_state"] == "ok" for member in self.servers)

    def _joined(self, member: RedisServer) -> bool:
        info = self._info(member)
        return info["cluster_known_nodes"] == str(len(self.servers)) and info["cluster_size"] == str(len(self.servers))

    def _has_slots(self, member: RedisServer) -> bool:
        return any("myself" in line and len(line.split()) > 8 for line in self._ask(member, "CLUSTER", "NODES").splitlines())

    def _info(self, member: RedisServer) -> dict[str, str]:
        text = self._ask(member, "CLUSTER", "INFO")
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)

    @staticmethod
    def _ask(member: RedisServer, *command: object) -> Any:
        # One argument of a name that redis-py knows would be parsed by it, differently in each version: plain replies.
        with member.client() as client:
            client.response_callbacks.clear()
            return client.execute_command(*command)
