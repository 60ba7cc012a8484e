"""How each server gets onto a machine, into the user's cache. A server that is there already is left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from integration.servers import cache, debian, go_module, maven, programs, rabbitmq


def _debian(*packages: str) -> Callable[[Path], None]:
    def unpack(into: Path) -> None:
        if not debian.available():
            raise debian.AptFailed(
                f"this way needs Debian or a relative of it: install {packages[0]} with your system's own packages"
            )
        debian.unpack(packages, into)

    return unpack


def _rabbitmq(into: Path) -> None:
    _debian("rabbitmq-server")(into)
    erl = into / "usr" / "lib" / "erlang" / "bin" / "erl"
    if erl.exists():  # it has the folder that it expects to be in, and looks for everything there
        here = 'ROOTDIR="$(dirname "$(dirname "$(readlink -f "$0")")")"'
        erl.write_text(erl.read_text().replace("ROOTDIR=/usr/lib/erlang", here))


def _jars(server: str) -> Callable[[Path], None]:
    return lambda into: maven.copy_jars(server, into)


#: server -> what fills its folder
RECIPES: dict[str, Callable[[Path], None]] = {
    "redis": _debian("redis-server", "redis-tools"),
    "zookeeper": _jars("zookeeper"),
    "consul": go_module.build_consul,
    "rabbitmq": _rabbitmq,
    "kafka": _jars("kafka"),
    "docker": _debian("docker.io"),
}
#: what `all` means: the servers; a Docker daemon is asked for by name
SERVERS = tuple(name for name in RECIPES if name != "docker")
_PROGRAMS = {"redis": "redis-server", "consul": "consul", "docker": "dockerd"}


def place(server: str) -> str | None:
    """Where it is, None when it is not installed."""
    folder = cache.folder(server)
    if folder.exists():
        return str(folder)
    try:
        if server == "rabbitmq":
            return str(rabbitmq.scripts())
        return str(programs.find(server, _PROGRAMS[server]).path) if server in _PROGRAMS else None
    except programs.NotInstalled:
        return None


def install(server: str) -> str:
    """Install it unless it is there; where it is. Raises what the recipe raises, and keeps nothing of it then."""
    return place(server) or str(cache.keep(server, RECIPES[server]))
