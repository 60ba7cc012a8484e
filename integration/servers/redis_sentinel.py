"""A Redis primary with one replica, and three sentinels that promote the replica when the primary is gone.

with RedisSentinel() as redis:
    narrowboat.locks(redis.url)            # redis+sentinel://127.0.0.1:20003,.../narrowboat/0
    redis.primary().kill()
    redis.wait_failover()                  # about three seconds later another server is the primary
"""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import quote

from integration.servers.group import Group
from integration.servers.ports import LOOPBACK
from integration.servers.redis import Config, RedisServer, quoted
from integration.servers.server import Runner

SERVICE = "narrowboat"


class RedisSentinel(Group):
    """Two servers and three sentinels, of which two must agree; arguments as for `RedisServer`. The sentinels have a password
    of their own, or none.
    """

    name: ClassVar[str] = "redis"

    def __init__(
        self,
        *,
        image: str | None = None,
        password: str | None = None,
        tls: bool = False,
        config: Config | None = None,
        sentinel_password: str | None = None,
    ) -> None:
        self.password = password
        first = RedisServer(image=image, password=password, tls=tls, config=config)
        secure = first.certificates or False  # one authority for all: they check each other, and a URL has room for one file
        second = RedisServer(image=image, password=password, tls=secure, config=config, replica_of=first)
        self.servers = (first, second)
        self.sentinels = tuple(_Sentinel(first, image=image, password=sentinel_password) for _ in range(3))
        super().__init__((*self.servers, *self.sentinels))

    @property
    def url(self) -> str:
        scheme, _, rest = self.servers[0].url.partition("://")
        who = f":{quote(self.password, safe='')}@" if self.password is not None else ""
        hosts = ",".join(f"{LOOPBACK}:{sentinel.port}" for sentinel in self.sentinels)
        options = [rest.partition("?")[2]] if self.servers[0].certificates else []
        if (secret := self.sentinels[0].password) is not None:
            options.append(f"sentinel_password={quote(secret, safe='')}")
        return f"{scheme}+sentinel://{who}{hosts}/{SERVICE}/0{'?' if options else ''}{'&'.join(options)}"

    def primary(self) -> RedisServer:
        """The server that the sentinels call the primary now."""
        with self.sentinels[0].client() as client:
            _, port = client.sentinel_get_master_addr_by_name(SERVICE)
        return next(server for server in self.servers if server.port == int(port))

    def wait_failover(self, *, gone: RedisServer | None = None) -> RedisServer:
        """Wait until all sentinels name a primary that serves and is not `gone`; return it."""
        gone = gone or next((server for server in self.servers if not server.alive), None)
        self._until("a new primary", lambda: self._agreed(gone) is not None)
        found = self._agreed(gone)
        assert found is not None
        return found

    def _agreed(self, gone: RedisServer | None) -> RedisServer | None:
        named: set[int] = set()
        for sentinel in self.sentinels:
            with sentinel.client() as client:
                address = client.sentinel_get_master_addr_by_name(SERVICE)
                named.add(int(address[1]) if address else 0)
        found = next((server for server in self.servers if named == {server.port} and server is not gone), None)
        if found is None or not found.alive:
            return None
        with found.client() as client:
            return found if client.role()[0] in {"master", b"master"} else None

    def start(self) -> None:
        for server in self.servers:
            server.start()  # with its data: a sentinel that looks too early looks again for replicas ten seconds later
        super().start()

    def _form(self) -> None:
        self._until("sentinels that all know each other and the replica", self._formed)

    def _formed(self) -> bool:
        if self._agreed(None) is None:
            return False
        for sentinel in self.sentinels:
            with sentinel.client() as client:
                state: dict[str, Any] = client.sentinel_masters()[SERVICE]
                if int(state["num-other-sentinels"]) != len(self.sentinels) - 1 or int(state["num-slaves"]) != 1:
                    return False
        return True


class _Sentinel(RedisServer):
    """One sentinel. It rewrites its configuration file as it learns."""

    def __init__(self, primary: RedisServer, *, image: str | None, password: str | None) -> None:
        super().__init__(image=image, password=password, tls=primary.certificates or False)
        self._watched = primary

    def _prepare(self) -> Runner:
        path = self.directory / "sentinel.conf"
        lines = {name: value for name, value in self.defaults().items() if name not in {"save", "appendonly"}}
        watch = [
            f"monitor {SERVICE} {LOOPBACK} {self._watched.port} 2",
            f"down-after-milliseconds {SERVICE} 1000",
            f"failover-timeout {SERVICE} 5000",
        ]
        if self._watched.password is not None:
            watch.append(f"auth-pass {SERVICE} {quoted(self._watched.password)}")
        if self.password is not None:  # what it says to the others
            watch.append(f"sentinel-pass {quoted(self.password)}")
        text = [f"{name} {value}" for name, value in lines.items()] + [f"sentinel {line}" for line in watch]
        path.write_text("\n".join(text) + "\n", encoding="utf-8")
        path.chmod(0o600)
        return self._run("redis-server", str(path), "--sentinel")
