"""A Kafka broker for tests: one node that is its own controller.

    with KafkaServer(users={"shop": "s3cret"}, tls=True) as server:
        narrowboat.broker(server.url)          # kafkas://shop:s3cret@127.0.0.1:23456?ca=/.../ca.pem

A client of Kafka goes where the broker says it is, so a proxy in front must be announced: `proxied` is a second
listener, whose announced address is a port that nobody listens on until a test puts its proxy there.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import struct
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple
from urllib.parse import quote

from integration.servers import programs
from integration.servers.certificates import Certificates
from integration.servers.ports import LOOPBACK, free_port
from integration.servers.process import Process
from integration.servers.server import Address, Runner, Server, ServerFailed

_JVM = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]  # of the compilers the one that makes a start cheap
#: The files of a storage that is ready, by what they depend on: the edition and further lines of the configuration.
_formatted: dict[tuple[object, ...], dict[str, bytes]] = {}
#: a request of metadata, version 1: key 3, correlation 1, no client id, no topics
_METADATA = struct.pack(">hhihi", 3, 1, 1, -1, 0)


class Proxied(NamedTuple):
    """A listener that announces another address than its own."""

    behind: Address  #: where the broker listens: the proxy's target
    front: Address  #: where it says that it is: the proxy's place


class KafkaServer(Server):
    """One Kafka broker.

    Args:
        directory, port, image: as for every `Server`.
        users: names and passwords for SASL PLAIN; without any, everybody may come.
        tls: listen with TLS only; with these certificates, or with new ones.
        config: further lines of `server.properties`, by name; they beat the ones that are made here.
    """

    name: ClassVar[str] = "kafka"
    image_name: ClassVar[str] = "apache/kafka:4.1.1"
    dear = True
    start_bound = 180.0  # two minutes beside five other servers that start on two cores

    def __init__(
        self,
        directory: Path | str | None = None,
        *,
        port: int | None = None,
        image: str | None = None,
        users: Mapping[str, str] | None = None,
        tls: bool | Certificates = False,
        config: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(directory, port=port, image=image)
        self.users = dict(users or {})
        self.certificates = Certificates(self.directory / "tls") if tls is True else tls or None
        self.proxied = Proxied(Address(LOOPBACK, free_port()), Address(LOOPBACK, free_port()))
        self.internal = Address(LOOPBACK, free_port())  #: without password and TLS, for a look from outside
        self._controller = free_port()
        self._config = dict(config or {})

    @classmethod
    def check_installed(cls) -> None:
        programs.jars(cls.installation())

    @property
    def url(self) -> str:
        user, password = next(iter(self.users.items()), ("", None))
        return self.url_for(user, password)

    def url_for(self, user: str = "", password: str | None = None, *, port: int | None = None) -> str:
        """The URL for another user or password, or for another listener than the first."""
        who = f"{quote(user, safe='')}:{quote(password, safe='')}@" if password is not None else ""
        query = f"?ca={quote(str(self.certificates.ca))}" if self.certificates else ""
        return f"kafka{'s' if self.certificates else ''}://{who}{LOOPBACK}:{port or self.port}{query}"

    @property
    def proxied_url(self) -> str:
        """The URL through the proxy that a test puts at `proxied.front`."""
        user, password = next(iter(self.users.items()), ("", None))
        return self.url_for(user, password, port=self.proxied.front.port)

    def _answers(self) -> bool:
        return bool(announced(self.internal)) and (self.certificates is None or _shakes_hands(self.port))

    def _prepare(self) -> Runner:
        path = self.directory / "server.properties"
        lines = {**self._defaults(), **self._config}
        path.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        path.chmod(0o600)  # it has the passwords
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A", 1)
        if self.image is not None:
            home = "/opt/kafka/bin"
            format_ = f"{home}/kafka-storage.sh format --ignore-formatted -t {cluster} -c {path}"
            return self._run("sh", "-c", f"{format_} && exec {home}/kafka-server-start.sh {path}", env={"LOG_DIR": "/tmp"})
        log = self.directory / "output.log"
        java = [str(programs.java()), *_JVM, "-cp", f"{programs.jars(self.installation())}/*"]
        if not (self.directory / "data" / "meta.properties").exists():
            self._format([*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(path)])
        return Process([*java, "kafka.Kafka", str(path)], log=log)

    def _format(self, command: Sequence[str]) -> None:
        """Make the storage ready: with the tool, or with what it made for one like it, which costs no start of Java."""
        data = self.directory / "data"
        alike = (self.installation(), *sorted(self._config.items()))
        if alike not in _formatted:
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.directory, timeout=180)
            if done.returncode != 0:
                raise ServerFailed(f"{self}: its storage was not made ready:\n{(done.stdout + done.stderr)[-2000:]}")
            _formatted[alike] = {file.name: file.read_bytes() for file in data.iterdir()}
        data.mkdir(exist_ok=True)
        for name, content in _formatted[alike].items():
            (data / name).write_bytes(content)

    def _defaults(self) -> dict[str, str]:
        listeners = {
            "CLIENT": (self.port, self.port),
            "PROXIED": (self.proxied.behind.port, self.proxied.front.port),
            "INTERNAL": (self.internal.port, self.internal.port),
        }
        security = ("SASL_" if self.users else "") + ("SSL" if self.certificates else "PLAINTEXT")
        found = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{LOOPBACK}:{self._controller}",
            "listeners": ",".join(
                [f"{name}://{LOOPBACK}:{port}" for name, (port, _) in listeners.items()]
                + [f"CONTROLLER://{LOOPBACK}:{self._controller}"]
            ),
            "advertised.listeners": ",".join(f"{name}://{LOOPBACK}:{port}" for name, (_, port) in listeners.items()),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "INTERNAL",
            "listener.security.protocol.map": (f"CLIENT:{security},PROXIED:{security},INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT"),
            "log.dirs": str(self.directory / "data"),
            # One node: what is kept three times elsewhere is kept once, in as few partitions as make sense.
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "2",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "share.coordinator.state.topic.num.partitions": "2",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            # A killed broker comes back when the controller, which died with it, has given its former life up: 9 s unless told.
            "broker.session.timeout.ms": "2000",
            "broker.heartbeat.interval.ms": "300",
        }
        if self.certificates is not None:
            found |= {
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": str(self.certificates.both),
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(self.certificates.ca),
                "ssl.client.auth": "none",
            }
        if self.users:
            known = " ".join(f'user_{name}="{_escaped(password)}"' for name, password in self.users.items())
            module = f"org.apache.kafka.common.security.plain.PlainLoginModule required {known};"
            found |= {"sasl.enabled.mechanisms": "PLAIN"}
            found |= {f"listener.name.{name}.plain.sasl.jaas.config": module for name in ("client", "proxied")}
        return found


def _shakes_hands(port: int) -> bool:
    """Whether TLS can be agreed upon within two seconds. The first handshake of a JVM on a busy machine takes longer."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # whose certificate it is, is not the question
    with contextlib.suppress(TimeoutError), socket.create_connection((LOOPBACK, port), timeout=2) as line:
        context.wrap_socket(line).close()
        return True
    return False


def announced(listener: Address) -> list[Address]:
    """Where the brokers say that they are, to clients that come by a listener without password and TLS.

    Asked in bytes: the client libraries wait between their tries, up to half a minute when a start takes long.
    """
    with socket.create_connection(listener, timeout=2) as line, line.makefile("rb") as reply:
        line.sendall(struct.pack(">i", len(_METADATA)) + _METADATA)

        def number(code: str) -> int:
            return int(struct.unpack(code, reply.read(struct.calcsize(code)))[0])

        number(">i")  # how long the reply is
        number(">i")  # whose reply it is: there is one request
        found = []
        for _ in range(number(">i")):
            number(">i")  # the broker's id
            host = reply.read(number(">h")).decode()
            found.append(Address(host, number(">i")))
            if (rack := number(">h")) > 0:
                reply.read(rack)
        return found


def _escaped(text: str) -> str:
    # Once for the JAAS string, once more for the properties file.
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\\", "\\\\")
