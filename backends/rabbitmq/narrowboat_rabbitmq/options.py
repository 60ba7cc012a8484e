"""What an `amqp://` URL takes: the options of its query, and where the servers are. Pure, without pika."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from narrowboat.driver.endpoint import Endpoint
from narrowboat.driver.options import check_ranges
from narrowboat.driver.sources import Declare
from narrowboat.driver.tls import TlsOptions
from narrowboat.dsn import Secret, Url
from narrowboat.errors import ConfigurationError

SCHEME = "amqp"
#: The most levels above 0 that a classic queue may have. Each costs the server a queue of its own inside the queue.
PRIORITIES_MAX = 9
#: A server closes a connection after two to three heartbeats of silence.
SILENCES = 3


class QueueType(enum.Enum):
    """What kind of queue is declared."""

    QUORUM = "quorum"  #: replicated where the server is a cluster; counts how often it took a message back
    CLASSIC = "classic"  #: on one node, with priorities; does not count


@dataclass(frozen=True, kw_only=True)
class Options(TlsOptions):
    """`amqp://host:5672/vhost?prefix=&declare=auto&queue_type=quorum&heartbeat=5&priorities=0&ca=`."""

    prefix: str = ""  #: a namespace of its own in the same virtual host; two prefixes never meet
    declare: Declare = Declare.AUTO
    queue_type: QueueType = QueueType.QUORUM
    heartbeat: int = 5  #: seconds; a consumer that stands still loses its messages after two to three heartbeats
    priorities: int = 0  #: levels above 0 of every queue that is declared; classic queues only

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(
            self,
            SCHEME,
            ("heartbeat", 1, 600, "1 to 600 seconds"),
            ("priorities", 0, PRIORITIES_MAX, f"0 to {PRIORITIES_MAX} levels"),
        )
        if self.priorities and self.queue_type is not QueueType.CLASSIC:
            raise ConfigurationError(
                f"option priorities={self.priorities}: quorum queues have none; say queue_type=classic as well", backend=SCHEME
            )


def endpoint(url: Url, options: Options) -> Endpoint:
    """The servers that `url` names, and as `database` the virtual host.

    Without a user it is the server's own default, guest, which a server accepts from its own machine only.

    >>> str(endpoint(Url.parse("amqp://a,b:5673/shop"), Options()))
    'amqp://a:5672,b:5673/shop'
    """
    found = Endpoint.read(url, options, plain=SCHEME, port=5672, secure_port=5671)
    return replace(found, user=found.user or "guest", secret=found.secret or Secret("guest"), database=found.database or "/")
