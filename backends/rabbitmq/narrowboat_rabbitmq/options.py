"""What an `amqp://` URL takes: the options of its query, and where the servers are. Pure, without pika."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from narrowboat.driver.tls import TlsOptions
from narrowboat.dsn import Host, Secret, Url
from narrowboat.errors import ConfigurationError

SCHEME = "amqp"
#: Levels above 0 that a classic queue may have. Each costs the server a queue of its own inside the queue.
PRIORITIES_MAX = 9
#: Silences of one heartbeat after which the server has closed a connection: it counts two to three.
SILENCES = 3


class Declare(enum.Enum):
    """Whether queues and topics are made on the way."""

    AUTO = "auto"
    NEVER = "never"  #: what is not there is `NotFound`


class QueueType(enum.Enum):
    """What kind of queue is declared."""

    QUORUM = "quorum"  #: replicated where the server is a cluster, with a count of returns
    CLASSIC = "classic"  #: on one node, with priorities, without a count of returns


@dataclass(frozen=True, kw_only=True)
class Options(TlsOptions):
    """`amqp://host:5672/vhost?prefix=&declare=auto&queue_type=quorum&heartbeat=5&priorities=0&ca=`."""

    prefix: str = ""  #: a namespace of its own in the same virtual host; two prefixes never meet
    declare: Declare = Declare.AUTO
    queue_type: QueueType = QueueType.QUORUM
    heartbeat: int = 5  #: seconds; a consumer that stands still has lost its messages after three of them
    priorities: int = 0  #: levels above 0 of every queue that is declared; classic queues only

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.heartbeat <= 600:
            raise ConfigurationError(f"option heartbeat={self.heartbeat}: allowed are 1 to 600 seconds", backend=SCHEME)
        if not 0 <= self.priorities <= PRIORITIES_MAX:
            raise ConfigurationError(
                f"option priorities={self.priorities}: allowed are 0 to {PRIORITIES_MAX} levels", backend=SCHEME
            )
        if self.priorities and self.queue_type is not QueueType.CLASSIC:
            raise ConfigurationError(
                f"option priorities={self.priorities}: quorum queues have none; say queue_type=classic as well", backend=SCHEME
            )


@dataclass(frozen=True)
class Site:
    """Where the servers are and who we are. Its text has no password."""

    scheme: str
    hosts: tuple[Host, ...]
    vhost: str
    username: str
    password: Secret
    options: Options
    tls: bool = field(default=False)

    def __str__(self) -> str:
        hosts = ",".join(f"{host.name}:{host.port}" for host in self.hosts)
        return f"{self.scheme}://{hosts}/{'' if self.vhost == '/' else self.vhost}"


def site_of(url: Url, options: Options) -> Site:
    """The servers that `url` names; `ConfigurationError` where it says what cannot be.

    >>> str(site_of(Url.parse("amqp://a,b:5673/shop"), Options()))
    'amqp://a:5672,b:5673/shop'
    """
    tls = url.scheme == f"{SCHEME}s"
    if url.driver is not None:
        raise ConfigurationError(f"{url.scheme}+{url.driver}: there is no such variant; write {url.scheme}://", backend=SCHEME)
    options.check(url, secure=f"{SCHEME}s")
    port = 5671 if tls else 5672
    hosts = tuple(Host(host.name, host.port or port) for host in url.hosts) or (Host("localhost", port),)
    # Without a user the server's own default, which it accepts from its own machine only.
    return Site(
        scheme=url.scheme,
        hosts=hosts,
        vhost=url.path or "/",
        username=url.username or "guest",
        password=url.password or Secret("guest"),
        options=options,
        tls=tls,
    )
