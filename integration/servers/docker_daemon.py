"""A Docker daemon of one's own, for the test that runs a server through testcontainers where no daemon runs.

    with DockerDaemon() as daemon:
        make_image(daemon.url, "redis:7.4", programs.find("redis", "redis-server"))

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

#: where the dynamic linker looks by itself
_SYSTEM = ("/lib", "/usr/lib")
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


def make_image(host: str, name: str, *executables: programs.Program) -> None:
    """An image of these programs with the libraries that they ask for, each in /usr/bin, and nothing else.

    Args:
        host: the daemon that gets it, as in DOCKER_HOST.
        name: the image's, with its tag.
        executables: programs of this machine, linked dynamically.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for executable in executables:
            tar.add(executable.path.resolve(), f"usr/bin/{executable.path.name}")
            for library in _libraries(executable):
                # What was unpacked into the cache goes where the linker of the image looks: nobody tells it of the cache.
                place = library if library.startswith(_SYSTEM) else f"usr/lib/{Path(library).name}"
                tar.add(Path(library).resolve(), place.lstrip("/"))
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


def _libraries(executable: programs.Program) -> list[str]:
    """The shared libraries that the dynamic linker takes for it, itself included."""
    told = {**os.environ, **executable.env}
    command = ["ldd", str(executable.path)]
    listed = subprocess.run(command, env=told, capture_output=True, text=True, check=True, timeout=30).stdout
    return _LIBRARY.findall(listed)
