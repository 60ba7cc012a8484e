"""A `narrowboat serve` for tests: a process of this Python on a SQLite file of its own, with or without keys.

with ZeroMQServer() as server:
    narrowboat.locks(server.url)                       # zmq://127.0.0.1:23456/shop
with ZeroMQServer(secure=True) as server:
    server.url_for("another client")                   # zmqs://..., with keys that the server was not told of
"""

from __future__ import annotations

import os
import sys
import urllib.request
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

from integration.servers.ports import LOOPBACK, free_port
from integration.servers.process import Process
from integration.servers.programs import NotInstalled
from integration.servers.server import Runner, Server


class ZeroMQServer(Server):
    """One `narrowboat serve`.

    Args:
        directory, port: as for every `Server`.
        image: taken for the sake of the others; it runs here, because what is tested is this very code.
        secure: with keys, and one client whose key is known.
        query: options of the URL that is served, such as "durability=normal".
    """

    name: ClassVar[str] = "zeromq"
    image_name: ClassVar[str] = ""
    start_bound = 60.0
    stop_bound = 15.0

    def __init__(
        self,
        directory: Path | str | None = None,
        *,
        port: int | None = None,
        image: str | None = None,
        secure: bool = False,
        query: str = "",
    ) -> None:
        super().__init__(directory, port=port, image=None)
        self.secure = secure
        self.file = self.directory / "served.db"
        self.health_port = free_port()
        self._query = query
        if secure:
            self.make_keys("server")
            self.let_in("client")

    @classmethod
    def check_installed(cls) -> None:
        try:
            import zmq  # noqa: F401  # is it there
        except ImportError as error:
            raise NotInstalled(cls.name, "pyzmq", "pip install pyzmq, or this project with its extra zeromq") from error

    @property
    def url(self) -> str:
        return self.url_for("client")

    def url_for(self, client: str, namespace: str = "kit") -> str:
        """The URL of a client by its name; whoever has no keys yet gets new ones, that the server does not know."""
        if not self.secure:
            return f"zmq://{LOOPBACK}:{self.port}/{namespace}"
        self.make_keys(client)
        server, own = self.directory / "server.public", self.directory / f"{client}.secret"
        return f"zmqs://{LOOPBACK}:{self.port}/{namespace}?server_key={quote(str(server))}&key={quote(str(own))}"

    def make_keys(self, name: str) -> None:
        """Make both keys of that name, unless they are there."""
        from narrowboat_zeromq.server import program

        if not (self.directory / f"{name}.secret").exists():
            program.keygen(str(self.directory / name))

    def let_in(self, client: str) -> None:
        """Write the client's key into the file of those that are known. The server reads it when it starts, and on SIGHUP."""
        self.make_keys(client)
        with (self.directory / "clients").open("a") as file:
            file.write((self.directory / f"{client}.public").read_text())

    def signal(self, number: int) -> None:
        """Send its process a signal."""
        assert isinstance(self.runner, Process) and self.runner.pid is not None
        os.kill(self.runner.pid, number)

    def health(self, path: str) -> str:
        """What it answers at that path."""
        with urllib.request.urlopen(f"http://{LOOPBACK}:{self.health_port}{path}", timeout=5) as answer:  # ours
            text: str = answer.read().decode()
        return text

    def _prepare(self) -> Runner:
        query = f"?{self._query}" if self._query else ""
        arguments = [f"sqlite:///{self.file}{query}", "--bind", f"tcp://{LOOPBACK}:{self.port}"]
        arguments += ["--health", f"{LOOPBACK}:{self.health_port}"]
        if self.secure:
            arguments += ["--key", str(self.directory / "server.secret"), "--clients", str(self.directory / "clients")]
        paths = os.pathsep.join(os.path.abspath(path) for path in sys.path if path)
        return Process(
            [sys.executable, "-m", "narrowboat", "serve", *arguments],
            log=self.directory / "output.log",
            env={"PYTHONPATH": paths},
        )

    def _answers(self) -> bool:
        return self.health("/healthz") == "ok\n"
