"""Where the server is and how it is reached, read out of the URL before anything is sent.

    redis://user:password@host:6379/0                            one server, database 0
    rediss://...                                                 the same through TLS
    redis+sentinel://user:password@a:26379,b:26379/service/0     the primary that these sentinels name
    redis+cluster://user:password@a:7000,b:7000                  a cluster, known by some of its nodes

What cannot work is refused here: an unknown `+driver`, several hosts for one server, a path that is no database.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from narrowboat.dsn import Secret, Url, unknown
from narrowboat.errors import ConfigurationError
from narrowboat_redis.options import SCHEME, Common

PORT, SENTINEL_PORT = 6379, 26379
#: A server has 16 unless told otherwise, and can be told any number.
_DATABASES = 10_000


class Topology(enum.Enum):
    """What stands behind the hosts of the URL."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True)
class Address:
    """One server's host and port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class Site:
    """What a client needs to know to connect. Shows no secret."""

    scheme: str
    topology: Topology
    hosts: tuple[Address, ...]
    database: int = 0
    service: str = ""  #: the name under which the sentinels know the servers
    username: str | None = None
    password: Secret | None = None
    tls: bool = False
    options: Common = field(default_factory=Common)

    @classmethod
    def of(cls, url: Url, options: Common) -> Site:
        """The site that `url` names; `ConfigurationError` when it names none."""
        drivers = [topology.value for topology in Topology if topology is not Topology.SINGLE]
        if url.driver is not None and url.driver not in drivers:
            known = [f"{url.scheme}+{driver}" for driver in drivers]
            raise ConfigurationError(unknown("scheme", f"{url.scheme}+{url.driver}", [url.scheme, *known]), backend=url.scheme)
        topology = Topology(url.driver) if url.driver else Topology.SINGLE
        options.check(url, secure=f"{SCHEME}s")
        port = SENTINEL_PORT if topology is Topology.SENTINEL else PORT
        hosts = tuple(Address(host.name, host.port or port) for host in url.hosts) or (Address("localhost", port),)
        if topology is Topology.SINGLE and len(hosts) > 1:
            raise ConfigurationError(
                f"{url.scheme}:// takes one host, and this URL gives {len(hosts)}. For several, write "
                f"{url.scheme}+cluster://a,b,c or {url.scheme}+sentinel://a,b,c/service.",
                backend=url.scheme,
            )
        service, database = _path(url, topology)
        return cls(
            scheme=url.scheme,
            topology=topology,
            hosts=hosts,
            database=database,
            service=service,
            username=url.username,
            password=url.password,
            tls=url.scheme != SCHEME,
            options=options,
        )

    def __str__(self) -> str:
        hosts = ",".join(map(str, self.hosts))
        if self.topology is Topology.CLUSTER:
            return f"the Redis cluster at {hosts}"
        if self.topology is Topology.SENTINEL:
            return f"the Redis primary {self.service!r} of the sentinels at {hosts}"
        return f"Redis at {hosts}"


def _path(url: Url, topology: Topology) -> tuple[str, int]:
    """The service and the number of the database out of the URL's path."""
    service, path = "", url.path.strip("/")
    if topology is Topology.SENTINEL:
        service, _, path = path.partition("/")
        if not service:
            raise ConfigurationError(
                f"{url.scheme}+sentinel:// needs the name of the service, as the sentinels know it: "
                f"{url.scheme}+sentinel://host:26379/mymaster or .../mymaster/0",
                backend=url.scheme,
            )
    if path and not (path.isascii() and path.isdigit() and int(path) < _DATABASES):
        raise ConfigurationError(
            f"the URL's path {path!r} is no database of Redis: write a number, such as /0, or nothing", backend=url.scheme
        )
    database = int(path or 0)
    if topology is Topology.CLUSTER and database:
        raise ConfigurationError(
            f"a Redis cluster has database 0 only, and the URL asks for {database}: use prefix= to keep things apart",
            backend=url.scheme,
        )
    return service, database
