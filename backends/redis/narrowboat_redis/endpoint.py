"""Where the servers are and how to reach them, read from the URL before anything is sent.

    redis://user:password@host:6379/0                            one server, database 0
    rediss://...                                                 the same through TLS
    redis+sentinel://user:password@a:26379,b:26379/service/0     the primary that these sentinels name
    redis+cluster://user:password@a:7000,b:7000                  a cluster, known by some of its nodes

`valkey` and `valkeys` in place of `redis` and `rediss` mean the same.

This is where a URL that cannot work is refused: an unknown `+driver`, several hosts for one server, a path that is no database.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from narrowboat.driver.endpoint import Endpoint
from narrowboat.driver.sources import Refusals
from narrowboat.dsn import Url
from narrowboat.errors import ConfigurationError
from narrowboat_redis.options import PRODUCTS, Common

PORT, SENTINEL_PORT = 6379, 26379
#: A server has 16 unless told otherwise, and can be told any number.
_DATABASES = 10_000


class Deployment(enum.Enum):
    """What stands behind the hosts of the URL."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


_DRIVERS = {each.value: each for each in (Deployment.SENTINEL, Deployment.CLUSTER)}


@dataclass(frozen=True, kw_only=True, repr=False)
class RedisEndpoint(Endpoint):
    """What a client needs to know to connect. Shows no secret."""

    deployment: Deployment
    options: Common
    service: str = ""  #: the name under which the sentinels know the servers
    number: int = 0  #: of the database

    @classmethod
    def of(cls, url: Url, options: Common) -> RedisEndpoint:
        """The endpoint that `url` names; `ConfigurationError` when it names none."""
        deployment = _DRIVERS.get(url.driver or "", Deployment.SINGLE)
        several = f"For several, write {url.scheme}+cluster://a,b,c or {url.scheme}+sentinel://a,b,c/service."
        found = cls.read(
            url,
            options,
            plain=_plain(url.scheme),
            port=SENTINEL_PORT if deployment is Deployment.SENTINEL else PORT,
            one_host=several if deployment is Deployment.SINGLE else None,
            drivers=_DRIVERS,
            deployment=deployment,
            options=options,
        )
        service, number = _path(url, deployment)
        return replace(found, service=service, number=number)

    @property
    def product(self) -> str:
        """What the URL calls the servers. Whether they are that makes no difference."""
        return PRODUCTS[_plain(self.scheme)]

    @property
    def refuse(self) -> Refusals:
        """The refusals that all brokers word alike."""
        return Refusals(self.scheme)

    def __str__(self) -> str:
        hosts = ",".join(map(str, self.hosts))
        if self.deployment is Deployment.CLUSTER:
            return f"the {self.product} cluster at {hosts}"
        if self.deployment is Deployment.SENTINEL:
            return f"the {self.product} primary {self.service!r} of the sentinels at {hosts}"
        return f"{self.product} at {hosts}"

    __repr__ = __str__


def _plain(scheme: str) -> str:
    """The scheme without TLS.

    >>> _plain("redis"), _plain("rediss"), _plain("valkeys")
    ('redis', 'redis', 'valkey')
    """
    return scheme if scheme in PRODUCTS else scheme[:-1]


def _path(url: Url, deployment: Deployment) -> tuple[str, int]:
    """The service and the number of the database out of the URL's path."""
    service, path = "", url.path.strip("/")
    if deployment is Deployment.SENTINEL:
        service, _, path = path.partition("/")
        if not service:
            raise ConfigurationError(
                f"{url.scheme}+sentinel:// needs the name of the service, as the sentinels know it: "
                f"{url.scheme}+sentinel://host:26379/mymaster or .../mymaster/0",
                backend=url.scheme,
            )
    if path and not (path.isascii() and path.isdigit() and int(path) < _DATABASES):
        raise ConfigurationError(
            f"the URL's path {path!r} is no database of a server: write a number, such as /0, or nothing", backend=url.scheme
        )
    number = int(path or 0)
    if deployment is Deployment.CLUSTER and number:
        raise ConfigurationError(
            f"a cluster is used with its database 0 only, and the URL asks for {number}: use prefix= to keep things apart",
            backend=url.scheme,
        )
    return service, number
