"""A RocketMQ for tests: a name server, one broker and one proxy, which are three programs and one server.

    with RocketMQServer() as server:
        narrowboat.broker(server.url)      # rocketmq://127.0.0.1:23456?admin=127.0.0.1:23457
        server.proxy.kill(); server.proxy.start()

They start one after the other, because a proxy that finds no broker ends. Each can be killed, paused and started by itself.
The three listen on all addresses whatever they are told. Together they take less than 2 GiB.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from integration.servers import programs
from integration.servers.certificates import Certificates
from integration.servers.container import Container
from integration.servers.ports import LOOPBACK, free_port
from integration.servers.process import Process
from integration.servers.server import Runner, Server, ServerFailed

#: Of the compilers the one that makes a start cheap.
_JVM = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
#: What they reach into in a Java of today.
_OPEN = [
    *("--add-exports", "java.base/jdk.internal.ref=ALL-UNNAMED", "--add-exports", "java.base/sun.nio.ch=ALL-UNNAMED"),
    *(
        word
        for name in ("java.nio", "jdk.internal.misc", "sun.nio.ch")
        for word in ("--add-opens", f"java.base/{name}=ALL-UNNAMED")
    ),
]
_AUTH = "org.apache.rocketmq.auth.authentication.provider"
#: The account with which the proxy and the broker trust each other, where accounts are asked for.
_INNER = {"accessKey": "inner", "secretKey": "inner-secret"}


class Part:
    """One of the three programs: the verbs of a `Runner`, and `start` returns when it is ready."""

    def __init__(self, runner: Runner, ready: Callable[[], bool], what: str, bound: float, *, again: bool = False) -> None:
        self.runner = runner
        self._again = again  #: begin once more where it ended: a proxy does when a busy broker has not answered within 3 s
        self._ready = ready
        self._what = what
        self._bound = bound

    def start(self) -> None:
        """Start it, and wait until it is ready; `ServerFailed` when it is not in time."""
        self.runner.start()
        deadline = time.monotonic() + self._bound
        while not self._is_ready():
            ended, late = not self.runner.alive, time.monotonic() > deadline
            if late or (ended and not self._again):
                raise ServerFailed(f"RocketMQ's {self._what} did not become ready. Its log:\n{self.runner.log()[-3000:]}")
            if ended:
                self.runner.start()
            time.sleep(0.05)  # the pause between two questions

    def _is_ready(self) -> bool:
        try:
            return self._ready()
        except (OSError, ValueError, struct.error):
            return False

    def stop(self) -> None:
        """End it in good order."""
        self.runner.terminate(20.0)

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.runner.kill()

    def pause(self) -> None:
        """Let it stand still."""
        self.runner.pause()

    def resume(self) -> None:
        """Let it go on."""
        self.runner.resume()


class _Together:
    """The three as one `Runner`, in the order in which they start; they end the other way round."""

    def __init__(self, *parts: Part) -> None:
        self._parts = parts

    @property
    def alive(self) -> bool:
        return all(part.runner.alive for part in self._parts)

    def start(self) -> None:
        for part in self._parts:
            part.start()

    def terminate(self, bound: float) -> None:
        for part in reversed(self._parts):
            part.runner.terminate(bound)

    def kill(self) -> None:
        for part in reversed(self._parts):
            part.runner.kill()

    def pause(self) -> None:
        for part in self._parts:
            part.runner.pause()

    def resume(self) -> None:
        for part in self._parts:
            part.runner.resume()

    def log(self) -> str:
        return "".join(part.runner.log() for part in self._parts)

    def close(self) -> None:
        for part in self._parts:
            part.runner.close()


class RocketMQServer(Server):
    """One name server, one broker, one proxy.

    Args:
        directory, port, image: as for every `Server`; the port is the proxy's.
        users: names and secret keys; without any, everybody may come. The first one may do everything, the others nothing.
        tls: the proxy takes TLS only; with these certificates, or with new ones.
        config: further lines of the broker's configuration, by name.
        proxy_config: further settings of the proxy.
    """

    name: ClassVar[str] = "rocketmq"
    image_name: ClassVar[str] = "apache/rocketmq:5.4.0"
    start_bound = 600.0  # for each of the three: minutes, on two cores that ten others want

    def __init__(
        self,
        directory: Path | str | None = None,
        *,
        port: int | None = None,
        image: str | None = None,
        users: Mapping[str, str] | None = None,
        tls: bool | Certificates = False,
        config: Mapping[str, str] | None = None,
        proxy_config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(directory, port=port, image=image)
        self.users = dict(users or {})
        self.certificates = Certificates(self.directory / "tls") if tls is True else tls or None
        self.admin_port = free_port()  #: the name server's
        fast = free_port(distance=2)
        self.broker_port, self._ha_port, self._remoting_port = fast + 2, free_port(), free_port()
        self._config = dict(config or {})
        self._proxy_config = dict(proxy_config or {})

    @classmethod
    def check_installed(cls) -> None:
        programs.jars(cls.installation())

    @property
    def url(self) -> str:
        user, password = next(iter(self.users.items()), ("", None))
        return self.url_for(user, password)

    def url_for(self, user: str = "", password: str | None = None, *, path: str = "", admin: bool = True) -> str:
        """The URL for another user, namespace, or without the administration."""
        who = f"{quote(user, safe='')}:{quote(password, safe='')}@" if password is not None else ""
        query = [f"admin={LOOPBACK}:{self.admin_port}"] if admin else []
        query += [f"ca={quote(str(self.certificates.ca))}"] if self.certificates else []
        return (
            f"rocketmq{'s' if self.certificates else ''}://{who}{LOOPBACK}:{self.port}{path}"
            + "?" * bool(query)
            + "&".join(query)
        )

    def _answers(self) -> bool:
        return self.runner.alive and _accepts(self.port)

    def _prepare(self) -> Runner:
        home = self.directory / "home"
        (home / "conf").mkdir(parents=True, exist_ok=True)
        names = self.directory / "namesrv.conf"
        names.write_text(f"listenPort={self.admin_port}\nkvConfigPath={home}/kv.json\n")
        broker = self.directory / "broker.conf"
        broker.write_text("".join(f"{name}={value}\n" for name, value in {**self._broker_lines(), **self._config}.items()))
        proxy = self.directory / "proxy.json"
        proxy.write_text(json.dumps({**self._proxy_lines(), **self._proxy_config}, indent=1))
        for each in (broker, proxy):
            each.chmod(0o600)  # they have the keys
        where = f"{LOOPBACK}:{self.admin_port}"
        tls_only = ["-Dtls.server.mode=enforcing"] if self.certificates else []
        self.namesrv = self._part("namesrv", ["-c", str(names)], 96, lambda: _accepts(self.admin_port))
        self.broker = self._part("broker", ["-c", str(broker)], 512, lambda: self.broker_port in registered(self.admin_port))
        more = ["-pm", "CLUSTER", "-n", where, "-pc", str(proxy)]
        self.proxy = self._part("proxy", more, 320, lambda: _accepts(self.port), *tls_only)
        return _Together(self.namesrv, self.broker, self.proxy)

    def _part(self, what: str, arguments: list[str], heap: int, ready: Callable[[], bool], *options: str) -> Part:
        home, log = self.directory / "home", self.directory / f"{what}.log"
        env = {"ROCKETMQ_HOME": str(home), "NAMESRV_ADDR": f"{LOOPBACK}:{self.admin_port}"}
        if self.image is not None:
            script = {"namesrv": "mqnamesrv", "broker": "mqbroker", "proxy": "mqproxy"}[what]
            env = {"JAVA_OPT_EXT": f"-Xms64m -Xmx{heap}m -Duser.home={self.directory} {' '.join(options)}"}
            line = f"cd $ROCKETMQ_HOME/bin && exec ./{script} {' '.join(arguments)}"  # the image says where it is
            runner: Runner = Container(self.image, ["sh", "-c", line], directory=self.directory, env=env)
        else:
            classes = f"{programs.jars(self.installation())}/*"
            kind = {"namesrv": "namesrv.NamesrvStartup", "broker": "broker.BrokerStartup", "proxy": "proxy.ProxyStartup"}[what]
            direct = ["-XX:MaxDirectMemorySize=400m", f"-Duser.home={self.directory}", "-Djava.net.preferIPv4Stack=true"]
            java = [str(programs.java()), f"-Xmx{heap}m", *_JVM, *_OPEN, *direct, *options]
            runner = Process([*java, "-cp", classes, f"org.apache.rocketmq.{kind}", *arguments], log=log, env=env)
        return Part(runner, ready, what, self.start_bound, again=what == "proxy")

    def _broker_lines(self) -> dict[str, str]:
        store = self.directory / "store"
        lines = {
            "brokerClusterName": "DefaultCluster",
            "brokerName": "broker-a",
            "brokerId": "0",
            "brokerIP1": LOOPBACK,
            "namesrvAddr": f"{LOOPBACK}:{self.admin_port}",
            "listenPort": str(self.broker_port),
            "haListenPort": str(self._ha_port),
            "storePathRootDir": str(store),
            "storePathCommitLog": str(store / "commitlog"),
            "mappedFileSizeCommitLog": str(64 * 1024 * 1024),
            "mappedFileSizeConsumeQueue": str(20 * 1000 * 10),
            "mappedFileSizeTimerLog": str(8 * 1024 * 1024),
            "timerWheelEnable": "true",
            "timerFlushIntervalMs": "60000",  # it compares 37 MB byte by byte: once a second that is half of its work
            "waitTimeMillsInSendQueue": "5000",  # a machine of tests is busy: after 200 ms it would refuse
            "diskMaxUsedSpaceRatio": "98",
        }
        if self.users:
            lines |= {
                "authenticationEnabled": "true",
                "authenticationProvider": f"{_AUTH}.DefaultAuthenticationProvider",
                "authenticationMetadataProvider": f"{_AUTH}.LocalAuthenticationMetadataProvider",
                "initAuthenticationUser": json.dumps({"username": _INNER["accessKey"], "password": _INNER["secretKey"]}),
                "innerClientAuthenticationCredentials": json.dumps(_INNER),
            }
        return lines

    def _proxy_lines(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "rocketMQClusterName": "DefaultCluster",
            "proxyMode": "CLUSTER",
            "namesrvAddr": f"{LOOPBACK}:{self.admin_port}",
            "grpcServerPort": self.port,
            "remotingListenPort": self._remoting_port,
        }
        if self.certificates is not None:
            found |= {
                "tlsTestModeEnable": False,
                "tlsKeyPath": str(self.certificates.key),
                "tlsCertPath": str(self.certificates.certificate),
            }
        if self.users:
            found |= {
                "authenticationEnabled": True,
                "authenticationProvider": f"{_AUTH}.DefaultAuthenticationProvider",
                "authenticationMetadataProvider": "org.apache.rocketmq.proxy.auth.ProxyAuthenticationMetadataProvider",
                "innerClientAuthenticationCredentials": json.dumps(_INNER),
            }
        return found


def _accepts(port: int) -> bool:
    with socket.create_connection((LOOPBACK, port), timeout=2):
        return True


def ask(port: int, code: int, fields: Mapping[str, Any], body: bytes = b"") -> tuple[int, Any]:
    """One request of the remoting protocol, in bytes, by no client of ours: the answer's code and its body."""
    wanted = {"code": code, "language": "JAVA", "version": 0, "opaque": 1, "flag": 0, "extFields": fields}
    head = json.dumps(wanted).encode()
    with socket.create_connection((LOOPBACK, port), timeout=5) as line, line.makefile("rb") as reply:
        line.sendall(struct.pack(">ii", 4 + len(head) + len(body), len(head)) + head + body)
        whole, header = struct.unpack(">ii", reply.read(8))
        found = json.loads(reply.read(header & 0xFFFFFF))
        text = reply.read(whole - 4 - (header & 0xFFFFFF)) or b"{}"
    return int(found["code"]), json.loads(re.sub(rb"([{,])(\d+):", rb'\1"\2":', text))  # its numbers as keys have no quotes


def registered(admin_port: int) -> set[int]:
    """The ports of the brokers that the name server knows."""
    table: dict[str, Any] = ask(admin_port, 106, {})[1].get("brokerAddrTable", {})
    return {int(address.rpartition(":")[2]) for each in table.values() for address in each["brokerAddrs"].values()}
