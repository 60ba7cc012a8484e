"""A ZooKeeper server for tests, alone; `zookeeper_ensemble.py` has three of them.

    with ZooKeeperServer(tls=True) as server:
        narrowboat.locks(server.url)           # zookeepers://127.0.0.1:23456?ca=/.../ca.pem

Its tick is 500 ms and sessions may be as short as 1 s, so that a lost session is a matter of seconds.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

from integration.servers import programs
from integration.servers.certificates import Certificates
from integration.servers.ports import LOOPBACK
from integration.servers.process import Process
from integration.servers.server import Runner, Server

_MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
_JVM = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]


class ZooKeeperServer(Server):
    """One ZooKeeper server.

    Args:
        directory, port, image: as for every `Server`.
        tls: listen with TLS only; with these certificates, or with new ones.
        config: further lines of `zoo.cfg`, by name; they beat the ones that are made here.
        identity: its number in an ensemble.
    """

    name: ClassVar[str] = "zookeeper"
    image_name: ClassVar[str] = "zookeeper:3.9"

    def __init__(
        self,
        directory: Path | str | None = None,
        *,
        port: int | None = None,
        image: str | None = None,
        tls: bool | Certificates = False,
        config: Mapping[str, str] | None = None,
        identity: int = 1,
    ) -> None:
        super().__init__(directory, port=port, image=image)
        self.certificates = Certificates(self.directory / "tls") if tls is True else tls or None
        self._config = dict(config or {})
        self._identity = identity

    @classmethod
    def check_installed(cls) -> None:
        programs.jars(cls.installation())

    @property
    def url(self) -> str:
        return self.url_for()

    def url_for(self, user: str = "", password: str | None = None, path: str = "") -> str:
        """The URL for a user of digest authentication (the server takes any), and below a root of its own."""
        return url_of([self], user, password, path)

    def command(self, word: str) -> str:
        """The answer to a four-letter command: `srvr`, `mntr`, `cons`, `wchs` (text), as the server gives it."""
        with contextlib.ExitStack() as stack:
            line: socket.socket = stack.enter_context(socket.create_connection(self.address, timeout=1))
            if self.certificates is not None:
                context = ssl.create_default_context(cafile=str(self.certificates.ca))
                line = stack.enter_context(context.wrap_socket(line, server_hostname=LOOPBACK))
            line.sendall(word.encode())
            parts: list[bytes] = []
            while part := line.recv(65_536):
                parts.append(part)
        return b"".join(parts).decode()

    def mode(self) -> str | None:
        """`standalone`, `leader` or `follower`; None while it serves nobody, as without a quorum."""
        lines = (line.partition(": ") for line in self.command("srvr").splitlines())
        return next((value for word, _, value in lines if word == "Mode"), None)

    def _answers(self) -> bool:
        return self.mode() is not None

    def _prepare(self) -> Runner:
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        (data / "myid").write_text(f"{self._identity}\n")
        path = self.directory / "zoo.cfg"
        path.write_text("".join(f"{name}={value}\n" for name, value in {**self._defaults(data), **self._config}.items()))
        flags = ["-Dzookeeper.admin.enableServer=false", *_JVM]
        if self.image is not None:
            env = {"JVMFLAGS": " ".join(flags), "ZOO_LOG_DIR": str(self.directory)}
            return self._run("zkServer.sh", "--config", str(self.directory), "start-foreground", env=env)
        classes = f"{self.directory}:{programs.jars(self.installation())}/*"
        log = self.directory / "output.log"
        return Process([str(programs.java()), *flags, "-cp", classes, _MAIN, str(path)], log=log)

    def _defaults(self, data: Path) -> dict[str, str]:
        found = {
            "dataDir": str(data),
            "tickTime": "500",
            "initLimit": "20",
            "syncLimit": "6",
            "minSessionTimeout": "1000",
            "maxSessionTimeout": "60000",
            "maxClientCnxns": "0",  # all clients of a test come from one address
            "4lw.commands.whitelist": "*",
        }
        if self.certificates is None:
            return found | {"clientPort": str(self.port), "clientPortAddress": LOOPBACK}
        return found | {
            "secureClientPort": str(self.port),
            "secureClientPortAddress": LOOPBACK,
            "serverCnxnFactory": "org.apache.zookeeper.server.NettyServerCnxnFactory",
            "ssl.keyStore.type": "PEM",
            "ssl.keyStore.location": str(self.certificates.both),
            "ssl.trustStore.type": "PEM",
            "ssl.trustStore.location": str(self.certificates.ca),
            "ssl.clientAuth": "none",
        }


def url_of(servers: list[ZooKeeperServer], user: str = "", password: str | None = None, path: str = "") -> str:
    """One URL with the hosts of all `servers`."""
    certificates = servers[0].certificates
    who = f"{quote(user, safe='')}:{quote(password, safe='')}@" if password is not None else ""
    hosts = ",".join(f"{LOOPBACK}:{server.port}" for server in servers)
    query = f"?ca={quote(str(certificates.ca))}" if certificates else ""
    return f"zookeeper{'s' if certificates else ''}://{who}{hosts}{f'/{path}' if path else ''}{query}"
