"""One container that runs one server, through testcontainers: the same verbs as a `Process`.

It shares the machine's network, so that a server is configured the same in a container and outside: it listens on the
loopback address, on its own port, and says the same address to its clients and to the other members of a cluster. That
needs a Docker daemon on this very Linux machine; Docker Desktop runs its own machine, see `docker.usable`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer


class Container:
    """A container of `image` that runs `argv`, with `directory` at the same path inside.

    The container is made once and started again after `terminate` and `kill`, so it keeps its place and its log; `close`
    removes it.
    """

    def __init__(self, image: str, argv: Sequence[str], *, directory: Path, env: Mapping[str, str] | None = None) -> None:
        self.image = image
        self.argv = list(argv)
        self._directory = directory
        self._env = dict(env or {})
        self._container: DockerContainer | None = None

    def _wrapped(self) -> Any:
        if self._container is None:
            raise RuntimeError(f"the container of {self.image} was not started")
        return self._container.get_wrapped_container()

    @property
    def alive(self) -> bool:
        """Whether it runs; a paused one does."""
        if self._container is None:
            return False
        container = self._wrapped()
        container.reload()
        return container.status in {"running", "paused"}

    def start(self) -> None:
        """Make it, or start the one that has ended; nothing when it runs."""
        if self._container is None:
            from testcontainers.core.container import DockerContainer

            made = DockerContainer(self.image).with_command(self.argv[1:])
            for name, value in self._env.items():
                made = made.with_env(name, value)
            made = made.with_volume_mapping(str(self._directory), str(self._directory), "rw").with_kwargs(
                network_mode="host",
                entrypoint=self.argv[:1],  # an image's own would change users and write configurations
                user=f"{os.getuid()}:{os.getgid()}",  # what it writes can be removed by whoever runs the tests
                working_dir=str(self._directory),
            )
            self._container = made
            made.start()
        elif not self.alive:
            self._wrapped().start()

    def terminate(self, bound: float) -> None:
        """`docker stop`: SIGTERM, and SIGKILL after `bound` seconds."""
        if self.alive:
            self.resume()
            self._wrapped().stop(timeout=int(bound))

    def kill(self) -> None:
        """`docker kill`: SIGKILL, also while it is paused."""
        from docker.errors import APIError

        if self.alive:
            self.resume()  # the daemon refuses to kill a paused container
            with contextlib.suppress(APIError):  # it ended by itself between the look and the kill
                self._wrapped().kill()
            self._wrapped().wait(timeout=20)

    def pause(self) -> None:
        """`docker pause`: every process of it stands still; nothing when it does already."""
        container = self._wrapped()
        container.reload()
        if container.status == "running":
            container.pause()

    def resume(self) -> None:
        """`docker unpause`; nothing when it is not paused."""
        container = self._wrapped()
        container.reload()
        if container.status == "paused":
            container.unpause()

    def log(self) -> str:
        """What it has printed, in all its runs."""
        return self._wrapped().logs().decode("utf-8", "replace") if self._container is not None else ""

    def close(self) -> None:
        """Remove it."""
        if self._container is not None:
            self._container.stop()  # testcontainers' word for removing it, with force
            self._container = None
