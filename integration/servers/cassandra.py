"""A Cassandra node for tests, alone in its ring.

    with CassandraServer(sync="periodic", auth=True, tls=True) as server:
        narrowboat.locks(server.url)           # cassandras://cassandra:cassandra@127.0.0.1:23456/narrowboat?ca=/.../ca.pem

It has one token, half a gigabyte of heap, and a commit log that is on the disk before a write is answered, unless told.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

from integration.servers import programs
from integration.servers.certificates import Certificates
from integration.servers.ports import LOOPBACK, free_port
from integration.servers.process import Process
from integration.servers.server import Runner, Server

_MAIN = "org.apache.cassandra.service.CassandraDaemon"
_JVM = ["-Xms256m", "-Xmx512m", "-Xss512k", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
#: What Cassandra's own jvm17-server.options opens to it.
_EXPORTS = (
    "java.base/jdk.internal.misc java.management.rmi/com.sun.jmx.remote.internal.rmi java.rmi/sun.rmi.registry "
    "java.rmi/sun.rmi.server java.sql/java.sql java.base/java.lang.ref jdk.unsupported/sun.misc "
    "java.base/jdk.internal.ref java.base/sun.nio.ch"
)
_OPENS = (
    "java.base/java.lang.module java.base/jdk.internal.loader java.base/jdk.internal.ref java.base/jdk.internal.reflect "
    "java.base/jdk.internal.math java.base/jdk.internal.module java.base/jdk.internal.util.jar java.base/sun.nio.ch "
    "java.base/java.io java.base/java.nio java.base/java.util java.base/java.util.concurrent "
    "java.base/java.util.concurrent.atomic java.base/java.lang java.base/java.lang.reflect java.base/java.net "
    "jdk.management/com.sun.management.internal"
)
#: What makes a node of its own serve at once: nobody else is there to be waited for.
_ALONE = [
    "-Dcassandra-foreground=yes",
    "-Dcassandra.ring_delay_ms=0",
    "-Dcassandra.skip_wait_for_gossip_to_settle=0",
    "-Dcassandra.superuser_setup_delay_ms=0",
    "-Djdk.attach.allowAttachSelf=true",
    "-Djava.net.preferIPv4Stack=true",
]
_SYNC = {
    "batch": "commitlog_sync: batch\n",
    "group": "commitlog_sync: group\ncommitlog_sync_group_window: 5ms\n",
    "periodic": "commitlog_sync: periodic\ncommitlog_sync_period: 10000ms\n",
}
_LOGBACK = """<configuration>
  <appender name="STDOUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%-5level %date{HH:mm:ss,SSS} %logger{20} %msg%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="STDOUT" /></root>
</configuration>
"""
#: A request for the options of the protocol, version 4: what a server answers before anybody has logged in.
_OPTIONS = bytes([4, 0, 0, 0, 5, 0, 0, 0, 0])
_SUPPORTED = 6


class CassandraServer(Server):
    """One Cassandra node.

    Args:
        directory, port, image: as for every `Server`.
        sync: when the commit log is on the disk: `batch` and `group` before a write is answered, `periodic` after up to 10 s.
        auth: users log in and have rights; there is one at first, `cassandra` with the password `cassandra`.
        tls: take clients with TLS only; with these certificates, or with new ones.
        config: further lines of `cassandra.yaml`, by name; they stand last.
    """

    name: ClassVar[str] = "cassandra"
    image_name: ClassVar[str] = "cassandra:5.0"
    start_bound = 240.0  # beside other servers that start on two cores
    stop_bound = 60.0

    def __init__(
        self,
        directory: Path | str | None = None,
        *,
        port: int | None = None,
        image: str | None = None,
        sync: str = "batch",
        auth: bool = False,
        tls: bool | Certificates = False,
        config: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(directory, port=port, image=image)
        self.certificates = Certificates(self.directory / "tls") if tls is True else tls or None
        self.auth = auth
        self._sync = sync
        self._storage = (free_port(), free_port())
        self._config = dict(config or {})

    @classmethod
    def check_installed(cls) -> None:
        programs.jars(cls.installation())

    @property
    def url(self) -> str:
        return self.url_for()

    def url_for(
        self, user: str | None = None, password: str | None = None, *, keyspace: str = "narrowboat", port: int | None = None
    ) -> str:
        """The URL for a user (the first one unless told), for another keyspace, or through another port."""
        if self.auth and user is None:
            user, password = "cassandra", "cassandra"
        who = f"{quote(user, safe='')}:{quote(password or '', safe='')}@" if user is not None else ""
        query = f"&ca={quote(str(self.certificates.ca))}" if self.certificates else ""
        scheme = "cassandras" if self.certificates else "cassandra"
        return f"{scheme}://{who}{LOOPBACK}:{port or self.port}/{keyspace}?create=true&replication=1{query}"

    def _answers(self) -> bool:
        with socket.create_connection(self.address, timeout=2) as plain:
            line: socket.socket = plain
            if self.certificates is not None:
                context = ssl.create_default_context(cafile=str(self.certificates.ca))
                line = context.wrap_socket(plain, server_hostname=LOOPBACK)
            line.sendall(_OPTIONS)
            answer = line.recv(9)
        return len(answer) == 9 and answer[4] == _SUPPORTED and self._users_are_there()

    def _users_are_there(self) -> bool:
        """A node makes its first user after it has begun to listen, and says so in its log."""
        return not self.auth or "Created default superuser" in self.log()

    def _prepare(self) -> Runner:
        path = self.directory / "cassandra.yaml"
        lines = "".join(f"{name}: {value}\n" for name, value in self._config.items())
        path.write_text(self._yaml() + lines)
        logback = self.directory / "logback.xml"
        logback.write_text(_LOGBACK.replace('level="WARN"', 'level="INFO"') if self.auth else _LOGBACK)
        flags = [*_ALONE, f"-Dcassandra.config=file://{path}", f"-Dlogback.configurationFile=file://{logback}"]
        if self.image is not None:
            return self._run("cassandra", "-R", "-f", env={"JVM_EXTRA_OPTS": " ".join([*_JVM, *flags])})
        jars = programs.jars(self.installation())
        opened = [f"--add-exports={each}=ALL-UNNAMED" for each in _EXPORTS.split()]
        opened += [f"--add-opens={each}=ALL-UNNAMED" for each in _OPENS.split()]
        (agent,) = jars.glob("jamm-*.jar")
        storage = f"-Dcassandra.storagedir={self.directory}"
        argv = [str(programs.java()), *_JVM, *opened, *flags, storage, f"-javaagent:{agent}", "-cp", f"{jars}/*", _MAIN]
        return Process(argv, log=self.directory / "output.log")

    def _yaml(self) -> str:
        data = self.directory / "data"
        text = f"""cluster_name: narrowboat
num_tokens: 1
initial_token: 0
auto_bootstrap: false
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
endpoint_snitch: SimpleSnitch
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters:
      - seeds: "{LOOPBACK}:{self._storage[0]}"
listen_address: {LOOPBACK}
rpc_address: {LOOPBACK}
storage_port: {self._storage[0]}
ssl_storage_port: {self._storage[1]}
native_transport_port: {self.port}
data_file_directories: ["{data}/rows"]
commitlog_directory: {data}/commitlog
saved_caches_directory: {data}/caches
hints_directory: {data}/hints
cdc_raw_directory: {data}/cdc
commitlog_segment_size: 8MiB
commitlog_total_space: 128MiB
disk_failure_policy: stop
auto_snapshot: false
read_request_timeout: 20s
range_request_timeout: 20s
write_request_timeout: 20s
cas_contention_timeout: 5s
request_timeout: 20s
concurrent_reads: 8
concurrent_writes: 16
trickle_fsync: false
{_SYNC[self._sync]}"""
        if self.auth:
            text += (
                "authenticator: PasswordAuthenticator\nauthorizer: CassandraAuthorizer\nrole_manager: CassandraRoleManager\n"
            )
            text += "permissions_validity: 0ms\nroles_validity: 0ms\ncredentials_validity: 0ms\n"
        if self.certificates is not None:
            key = "\n".join(f"        {line}" for line in self.certificates.both.read_text().splitlines())
            trust = "\n".join(f"        {line}" for line in self.certificates.ca.read_text().splitlines())
            text += f"""client_encryption_options:
  enabled: true
  optional: false
  require_client_auth: false
  ssl_context_factory:
    class_name: org.apache.cassandra.security.PEMBasedSslContextFactory
    parameters:
      private_key: |
{key}
      trusted_certificates: |
{trust}
"""
        return text
