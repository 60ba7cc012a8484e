"""What every server here can do: start, stop, die, stand still, come back with its data on its port, and say its URL.

    with RedisServer() as server:
        narrowboat.locks(server.url)

A server listens on the loopback address alone, on a port of its own, and keeps its data, configuration, certificates
and log in a directory of its own. `start` returns when the server answers. How its program runs (a process of this
machine, a container) is the business of its `Runner`; what it is configured to do, that of each subclass.
"""

from __future__ import annotations

import abc
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import ClassVar, NamedTuple, Protocol, Self

from integration.servers import programs
from integration.servers.container import Container
from integration.servers.ports import LOOPBACK, free_port
from integration.servers.process import Process


class ServerFailed(RuntimeError):
    """A server did not start, or ended when it should not; the text has the last lines of its log."""


class Address(NamedTuple):
    """Where it listens."""

    host: str
    port: int


class Runner(Protocol):
    """One program that can be started again and again: `Process`, or `Container`."""

    @property
    def alive(self) -> bool: ...  # a paused one is alive
    def start(self) -> None: ...
    def terminate(self, bound: float) -> None: ...
    def kill(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def log(self) -> str: ...
    def close(self) -> None: ...  # gives back what is left of it, such as a stopped container


class Controls(abc.ABC):
    """The verbs that one server and a group of servers share."""

    #: how the server is called in the environment, in `install` and in messages
    name: ClassVar[str]
    #: whether `stop`, `kill`, `pause` do anything; a server that only a URL names has no such faults
    faults: ClassVar[bool] = True

    @property
    @abc.abstractmethod
    def url(self) -> str:
        """The URL for `narrowboat.locks` or `narrowboat.broker`, with the password and the certificate's file."""

    @abc.abstractmethod
    def start(self) -> None:
        """Start it and wait until it answers; nothing when it runs. `ServerFailed` when it does not."""

    @abc.abstractmethod
    def stop(self) -> None:
        """End it in good order, and kill it when that takes too long. The data stays for the next `start`."""

    @abc.abstractmethod
    def kill(self) -> None:
        """End it with SIGKILL. The data stays as it was that moment; `start` brings it back."""

    @abc.abstractmethod
    def pause(self) -> None:
        """Let it stand still: its connections stay open and it answers nothing, until `resume`."""

    @abc.abstractmethod
    def resume(self) -> None:
        """Let a paused one go on."""

    @abc.abstractmethod
    def log(self) -> str:
        """What it has printed so far."""

    @abc.abstractmethod
    def close(self) -> None:
        """End it for good and remove its directory, if that was made for it."""

    def restart(self) -> None:
        """Stop and start: the same data, the same port."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Server(Controls):
    """One server of one program.

    Args:
        directory: where it keeps everything; a temporary one, removed by `close`, unless told.
        port: where it listens; a free one unless told.
        image: run it in a container of this image; the program of this machine unless told.
    """

    #: what `install` calls it, where that is another version than the usual one: "redis@8"; see `editions`
    edition: ClassVar[str] = ""
    #: the image that it runs in unless told, without a registry: Docker's own default is meant
    image_name: ClassVar[str]
    #: whether its start takes so long that tests hand it on to each other: see `integration/kept.py`
    dear: ClassVar[bool] = False
    #: seconds within which it must answer after it was started, and end after it was asked to
    start_bound: ClassVar[float] = 120.0
    stop_bound: ClassVar[float] = 20.0

    def __init__(self, directory: Path | str | None = None, *, port: int | None = None, image: str | None = None) -> None:
        self._temporary = directory is None
        self.directory = Path(directory or tempfile.mkdtemp(prefix=f"{self.name}-")).resolve()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self.image = image
        self._maker = os.getpid()
        self._runner: Runner | None = None

    # -- what a subclass says -----------------------------------------------------------------------------------

    @classmethod
    def installation(cls) -> str:
        """What `install` calls it."""
        return cls.edition or cls.name

    @classmethod
    @abc.abstractmethod
    def check_installed(cls) -> None:
        """`NotInstalled`, which says how to install it, when this machine lacks its program."""

    @abc.abstractmethod
    def _prepare(self) -> Runner:
        """Write the configuration, once, and name the program."""

    @abc.abstractmethod
    def _answers(self) -> bool:
        """Ask the server itself, within about a second. Any exception counts as no, and is shown if it stays so."""

    def _run(self, program: str, *arguments: str, env: Mapping[str, str] | None = None) -> Runner:
        """The program with these arguments, here or in a container."""
        if self.image is not None:
            return Container(self.image, [program, *arguments], directory=self.directory, env=env)
        found = programs.find(self.installation(), program)
        return Process(
            [str(found.path), *arguments],
            log=self.directory / "output.log",
            env={**found.env, **(env or {})},
            cwd=self.directory,
        )

    # -- the verbs ----------------------------------------------------------------------------------------------

    @property
    def address(self) -> Address:
        """Host and port."""
        return Address(LOOPBACK, self.port)

    @property
    def runner(self) -> Runner:
        """The process or the container."""
        if self._runner is None:
            self._runner = self._prepare()
        return self._runner

    @property
    def alive(self) -> bool:
        """Whether its process is there; a paused one is."""
        return self._runner is not None and self._runner.alive

    def launch(self) -> None:
        """Start it without waiting; `wait_ready` waits. For members that are ready only together."""
        self.runner.start()

    def wait_ready(self) -> None:
        """Wait until it answers; `ServerFailed` when it ends first, or does not within `start_bound` seconds."""
        begun = time.monotonic()
        while True:
            reason = "it says that it is not ready"
            try:
                if self._answers():
                    return
            except Exception as error:  # every client library has its own tree for "not yet"
                reason = f"{type(error).__name__}: {error}"
            if not self.runner.alive:
                raise ServerFailed(f"{self} ended while it was starting. {self.last_lines()}")
            if (waited := time.monotonic() - begun) > self.start_bound:
                raise ServerFailed(f"{self} did not answer within {self.start_bound:g} s ({reason}). {self.last_lines()}")
            # The pause between two questions, not a guess of how long it takes. What takes long is not asked so often.
            time.sleep(0.02 + min(0.2, waited / 50))

    def start(self) -> None:
        if self.alive:
            return
        self.launch()
        self.wait_ready()

    def stop(self) -> None:
        if self._runner is not None:
            self._runner.terminate(self.stop_bound)

    def kill(self) -> None:
        if self._runner is not None:
            self._runner.kill()

    def pause(self) -> None:
        self.runner.pause()

    def resume(self) -> None:
        self.runner.resume()

    def log(self) -> str:
        return self._runner.log() if self._runner is not None else ""

    def close(self) -> None:
        if self._maker != os.getpid():
            return  # a forked child's copy: the server is its parent's
        self.kill()
        if self._runner is not None:
            self._runner.close()
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def last_lines(self, count: int = 20) -> str:
        """The end of its log, for an error's text."""
        lines = self.log().splitlines()[-count:]
        return "The end of its log:\n  " + "\n  ".join(lines) if lines else "Its log is empty."

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {LOOPBACK}:{self.port} in {self.directory}>"
