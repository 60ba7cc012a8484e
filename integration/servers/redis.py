"""A Redis server for tests: with or without password, TLS, ACL users, a memory limit, as a primary or a replica.

    with RedisServer(password="s3cret", tls=True) as server:
        narrowboat.locks(server.url)                       # rediss://:s3cret@127.0.0.1:23456/0?ca=/.../ca.pem
        server.client().config_set("maxmemory", "1mb")     # redis-py, for a look from outside

It writes every command to its append-only file before it answers, so that what was answered is there after a kill -9
(a loss of the machine's power is not tested here).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from integration.servers import programs
from integration.servers.certificates import Certificates
from integration.servers.ports import LOOPBACK
from integration.servers.server import Runner, Server

#: A line of the configuration may be given several times (`user`), then its value is a list.
Config = Mapping[str, str | Sequence[str]]


class RedisServer(Server):
    """One `redis-server`.

    Args:
        directory, port, image: as for every `Server`.
        password: of the user `default`; none unless told.
        tls: listen with TLS only; with these certificates, or with new ones.
        config: further lines of the configuration, by name; they beat the ones that are made here.
            `{"user": ["shop on >pw ~shop:* +@all -flushall"]}` gives ACL users, `{"maxmemory": "2mb"}` a limit,
            `{"appendonly": "no"}` a server that forgets.
        replica_of: the primary to follow, read-only as Redis has it by default.
    """

    name: ClassVar[str] = "redis"
    image_name: ClassVar[str] = "redis:7.4"
    program: ClassVar[str] = "redis-server"
    scheme: ClassVar[str] = "redis"  #: of its URL
    start_bound = 60.0
    stop_bound = 10.0

    def __init__(
        self,
        directory: Path | str | None = None,
        *,
        port: int | None = None,
        image: str | None = None,
        password: str | None = None,
        tls: bool | Certificates = False,
        config: Config | None = None,
        replica_of: RedisServer | None = None,
    ) -> None:
        super().__init__(directory, port=port, image=image)
        self.password = password
        self.certificates = Certificates(self.directory / "tls") if tls is True else tls or None
        self.primary = replica_of
        self._config = dict(config or {})

    @classmethod
    def check_installed(cls) -> None:
        programs.find(cls.installation(), cls.program)

    @property
    def url(self) -> str:
        return self.url_for(password=self.password)

    def url_for(self, user: str = "", password: str | None = None, database: int = 0) -> str:
        """The URL for another user, password or database than the server's own."""
        who = f"{quote(user, safe='')}:{quote(password, safe='')}@" if password is not None else ""
        query = f"?ca={quote(str(self.certificates.ca))}" if self.certificates else ""
        return f"{self.scheme}{'s' if self.certificates else ''}://{who}{LOOPBACK}:{self.port}/{database}{query}"

    def client(self, **options: Any) -> Any:
        """A `redis.Redis` with text replies and a timeout of 5 s; `options` go to it. The caller closes it."""
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        secure = {"ssl": True, "ssl_ca_certs": str(self.certificates.ca)} if self.certificates else {}
        return redis.Redis(
            **{
                "host": LOOPBACK,
                "port": self.port,
                "password": self.password,
                "decode_responses": True,
                "socket_timeout": 5,
                "socket_connect_timeout": 5,
                "retry": Retry(NoBackoff(), 0),  # a look says what is there now
                **secure,
                **options,
            }
        )

    def _prepare(self) -> Runner:
        path = self.directory / "redis.conf"
        path.write_text(_lines({**self.defaults(), **self._config}), encoding="utf-8")
        path.chmod(0o600)  # it has the password
        return self._run(self.program, str(path), env={"LC_ALL": "C"})  # 8 ends where the machine lacks the locale of its user

    def option(self, name: str) -> str:
        """The value of a line of its configuration, as it was at the start."""
        value = {**self.defaults(), **self._config}[name]
        return value if isinstance(value, str) else " ".join(value)

    def defaults(self) -> dict[str, str | Sequence[str]]:
        """The lines of the configuration that are made here, without the caller's."""
        found: dict[str, str | Sequence[str]] = {
            "bind": LOOPBACK,
            "port": str(self.port),
            "dir": quoted(str(self.directory)),
            "daemonize": "no",
            "save": '""',
            "appendonly": "yes",
            # With `everysec` a server that waits for a slow disk answers before it has written: decision 0093.
            "appendfsync": "no",
            "repl-diskless-sync-delay": "0",  # a replica of a test is alone: nobody else to wait for
        }
        if self.password is not None:
            found |= {"requirepass": quoted(self.password), "masterauth": quoted(self.password)}
        if self.certificates is not None:
            found |= {
                "port": "0",
                "tls-port": str(self.port),
                "tls-ca-cert-file": quoted(str(self.certificates.ca)),
                "tls-cert-file": quoted(str(self.certificates.certificate)),
                "tls-key-file": quoted(str(self.certificates.key)),
                "tls-auth-clients": "no",
                "tls-replication": "yes",
            }
        if self.primary is not None:
            found["replicaof"] = f"{LOOPBACK} {self.primary.port}"
        return found

    def _answers(self) -> bool:
        # Any refusal will do: the tests may have changed the users. But who does not log in is refused while it loads as well.
        import redis

        refused = contextlib.suppress(redis.exceptions.AuthenticationError, redis.exceptions.NoPermissionError)
        with self.client(socket_timeout=1, socket_connect_timeout=1) as client, refused:
            client.ping()
        return self._follows()

    def _follows(self) -> bool:
        """Whether it has its primary's data, and the primary counts it as there; a primary has none to wait for."""
        if self.primary is None:
            return True
        with self.client() as client:
            if client.info("replication").get("master_link_status") != "up":
                return False
        # The replica says "up" a moment before its primary has read so: until then WAIT counts it out.
        with self.primary.client() as client:
            found = client.info("replication")
        return any(
            isinstance(line, dict) and line.get("port") == self.port and line.get("state") == "online"
            for name, line in found.items()
            if name.startswith("slave")
        )


def _lines(config: Config) -> str:
    lines = ((name, [value] if isinstance(value, str) else value) for name, value in config.items())
    return "".join(f"{name} {value}\n" for name, values in lines for value in values)


def quoted(text: str) -> str:
    """`text` as one word of a configuration line."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
