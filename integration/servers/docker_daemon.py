"""A Docker daemon of one's own, for the test that runs a server through testcontainers where no daemon runs.

    with DockerDaemon() as daemon:
        make_image(daemon.url, "redis:7.4", programs.find("redis", "redis-server").path)

It keeps to itself: its own socket, data and runtime folders, no bridge and no firewall rules, so containers have the
machine's network or none. It needs root, and what a container needs of the kernel; where that is missing its log says so.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
from pathlib import Path
from typing import Any, ClassVar

from integration.servers import cache, docker, programs
from integration.servers.process import Process
from integration.servers.server import Runner, Server

_LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x")


class DockerDaemon(Server):
    """One `dockerd` with its `containerd`."""

    name: ClassVar[str] = "docker"
    start_bound = 30.0
    stop_bound = 30.0

    @classmethod
    def check_installed(cls) -> None:
        programs.find(cls.name, "dockerd")

    @property
    def url(self) -> str:
        """For DOCKER_HOST."""
        return f"unix://{self.directory}/docker.sock"

    def _answers(self) -> bool:
        if not docker.answers(self.url):
            return False
        client = _client(self.url)
        try:
            return bool(client.ping())
        finally:
            client.close()

    def _prepare(self) -> Runner:
        found = programs.find(self.name, "dockerd")
        root = cache.folder(self.name)
        path = ":".join([str(root / "usr/bin"), str(root / "usr/sbin"), os.environ.get("PATH", os.defpath)])
        here = self.directory
        arguments = ["--data-root", str(here / "data"), "--exec-root", str(here / "run"), "--pidfile", str(here / "pid")]
        arguments += ["--host", self.url, "--bridge", "none", "--iptables=false", "--ip6tables=false"]
        return Process([str(found.path), *arguments], log=here / "output.log", env={**found.env, "PATH": path})


def make_image(host: str, name: str, *executables: Path) -> None:
    """An image of these programs with the libraries that they ask for, each in /usr/bin, and nothing else.

    Args:
        host: the daemon that gets it, as in DOCKER_HOST.
        name: the image's, with its tag.
        executables: programs of this machine, linked dynamically.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for executable in executables:
            tar.add(executable.resolve(), f"usr/bin/{executable.name}")
            for library in _libraries(executable):
                tar.add(Path(library).resolve(), library.lstrip("/"))
        folder = tarfile.TarInfo("tmp")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(folder)
    repository, _, tag = name.partition(":")
    client = _client(host)
    try:
        client.api.import_image_from_data(packed.getvalue(), repository=repository, tag=tag or "latest")
    finally:
        client.close()


def _client(host: str) -> Any:
    from docker import DockerClient

    return DockerClient(base_url=host, timeout=30)


def _libraries(executable: Path) -> list[str]:
    """The shared libraries that the dynamic linker takes for it, itself included."""
    listed = subprocess.run(["ldd", str(executable)], capture_output=True, text=True, check=True, timeout=30).stdout
    return _LIBRARY.findall(listed)
