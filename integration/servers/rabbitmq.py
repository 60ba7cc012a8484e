"""A RabbitMQ node for tests, with its own name, cookie, database and port mapper, and no plugins.

    with RabbitMQServer(password="s3cret", tls=True) as server:
        narrowboat.broker(server.url)          # amqps://narrowboat:s3cret@127.0.0.1:23456?ca=/.../ca.pem
        server.ctl("set_vm_memory_high_watermark", "0.000001")     # rabbitmqctl: a memory alarm

Erlang's port mapper (epmd) usually runs once a machine and outlives its nodes; this one is the node's own, on the
loopback address, and ends with it.
"""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

from integration.servers import programs
from integration.servers.certificates import Certificates
from integration.servers.ports import LOOPBACK, free_port, listening
from integration.servers.process import Process
from integration.servers.server import Runner, Server, ServerFailed

_HEADER = b"AMQP\x00\x00\x09\x01"
#: Its threads sleep when they have nothing to do. Unless told they spin for a while, on processors that the tests could use.
_NO_SPINNING = "+sbwt none +sbwtdcpu none +sbwtdio none"


class RabbitMQServer(Server):
    """One RabbitMQ node.

    Args:
        directory, port, image: as for every `Server`.
        user, password: the administrator; guest and guest unless told.
        tls: listen with TLS only; with these certificates, or with new ones.
        config: further lines of `rabbitmq.conf`, by name; they beat the ones that are made here.
    """

    name: ClassVar[str] = "rabbitmq"
    image_name: ClassVar[str] = "rabbitmq:3.13"
    dear = True
    start_bound = 90.0
    stop_bound = 40.0

    def __init__(
        self,
        directory: Path | str | None = None,
        *,
        port: int | None = None,
        image: str | None = None,
        user: str = "guest",
        password: str = "guest",
        tls: bool | Certificates = False,
        config: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(directory, port=port, image=image)
        self.user = user
        self.password = password
        self.certificates = Certificates(self.directory / "tls") if tls is True else tls or None
        self._config = dict(config or {})
        self._mapper_port = free_port()
        self._distribution = free_port()
        self._mapper: Process | None = None

    @classmethod
    def check_installed(cls) -> None:
        scripts(cls.installation())

    @property
    def url(self) -> str:
        return self.url_for(self.user, self.password)

    def url_for(self, user: str, password: str, vhost: str | None = None) -> str:
        """The URL for another user, password or virtual host than its own."""
        who = f"{quote(user, safe='')}:{quote(password, safe='')}@"
        path = f"/{quote(vhost, safe='')}" if vhost is not None else ""
        query = f"?ca={quote(str(self.certificates.ca))}" if self.certificates else ""
        return f"amqp{'s' if self.certificates else ''}://{who}{LOOPBACK}:{self.port}{path}{query}"

    def ctl(self, *arguments: str) -> str:
        """Run `rabbitmqctl` on this node; its output. It takes a second or two."""
        done = subprocess.run(
            [str(scripts(self.installation()) / "rabbitmqctl"), "--quiet", "--node", self._node, *arguments],
            env={**os.environ, **self._env()},
            capture_output=True,
            text=True,
            check=False,
            cwd=self.directory,
            timeout=60,
        )
        if done.returncode != 0:
            raise ServerFailed(f"rabbitmqctl {arguments[0]} on {self}: {(done.stderr + done.stdout).strip()}")
        return done.stdout

    def launch(self) -> None:
        if self.image is None:
            if self._mapper is None:
                self._mapper = Process(
                    [str(self._erlang("epmd").path), "-address", LOOPBACK, "-port", str(self._mapper_port)],
                    log=self.directory / "epmd.log",
                    env=dict(self._erlang("epmd").env),
                )
            self._mapper.start()
            self._wait_mapper()
        super().launch()

    def close(self) -> None:
        super().close()
        if self._mapper is not None:
            self._mapper.kill()

    def _wait_mapper(self) -> None:
        # A node that finds no port mapper starts one of its own, which nobody would end.
        assert self._mapper is not None
        while not listening(self._mapper_port):
            if not self._mapper.alive:
                raise ServerFailed(f"{self}: epmd ended while it was starting: {self._mapper.log()}")

    def _answers(self) -> bool:
        """Whether it opens an AMQP conversation: it accepts connections before it does."""
        line: socket.socket
        with socket.create_connection(self.address, timeout=2) as line:
            if self.certificates is not None:
                context = ssl.create_default_context(cafile=str(self.certificates.ca))
                line = context.wrap_socket(line, server_hostname=LOOPBACK)
            with line:
                line.sendall(_HEADER)
                return line.recv(1) == b"\x01"  # a method frame: connection.start

    @property
    def _node(self) -> str:
        return f"narrowboat{self.port}@localhost"

    def _prepare(self) -> Runner:
        path = self.directory / "rabbitmq.conf"
        path.write_text("".join(f"{name} = {value}\n" for name, value in {**self._defaults(), **self._config}.items()))
        path.chmod(0o600)  # it has the password
        (self.directory / "enabled_plugins").write_text("[].\n")
        if self.image is not None:
            return self._run("rabbitmq-server", env=self._env())
        return Process(
            [str(scripts(self.installation()) / "rabbitmq-server")],
            log=self.directory / "output.log",
            # Without its shell around it the node is the process that was started, and dies with its owner.
            env={**self._env(), "RABBITMQ_ALLOW_INPUT": "yes", "RABBITMQ_SERVER_START_ARGS": "-noinput"},
            cwd=self.directory,
        )

    def _env(self) -> dict[str, str]:
        here = str(self.directory)
        found = {
            "HOME": here,  # the cookie is there
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_CONFIG_FILE": f"{here}/rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{here}/none.config",
            "RABBITMQ_CONF_ENV_FILE": f"{here}/none.conf",
            "RABBITMQ_MNESIA_BASE": f"{here}/data",
            "RABBITMQ_LOG_BASE": here,
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{here}/enabled_plugins",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-kernel inet_dist_use_interface {{127,0,0,1}} {_NO_SPINNING}",
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_EPMD_PORT": str(self._mapper_port),
        }
        if self.image is None:
            erlang = self._erlang("erl")
            found |= {"PATH": f"{erlang.path.parent}:{os.environ.get('PATH', os.defpath)}", **erlang.env}
        return found

    def _erlang(self, program: str) -> programs.Program:
        return programs.find(self.installation(), program)

    def _defaults(self) -> dict[str, str]:
        found = {
            "default_user": self.user,
            "default_pass": self.password,
            "disk_free_limit.absolute": "50MB",
            "log.console.level": "warning",
        }
        if self.certificates is None:
            return found | {"listeners.tcp.1": f"{LOOPBACK}:{self.port}"}
        return found | {
            "listeners.tcp": "none",
            "listeners.ssl.1": f"{LOOPBACK}:{self.port}",
            "ssl_options.cacertfile": str(self.certificates.ca),
            "ssl_options.certfile": str(self.certificates.certificate),
            "ssl_options.keyfile": str(self.certificates.key),
            "ssl_options.verify": "verify_none",
            "ssl_options.fail_if_no_peer_cert": "false",
        }


def scripts(installation: str) -> Path:
    """The folder of RabbitMQ's own scripts. The ones in /usr/sbin are wrappers that change the user."""
    for root in programs.roots(installation):
        for folder in sorted(root.glob("usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin"), reverse=True):
            return folder
    raise programs.NotInstalled(installation, "rabbitmq-server")
