"""What a `rocketmq://` URL takes: the options of its query, and where the proxy and the name server are. Without grpc."""

from __future__ import annotations

from dataclasses import dataclass

from narrowboat.driver.endpoint import Endpoint, HostPort
from narrowboat.driver.options import check_ranges
from narrowboat.driver.sources import Declare
from narrowboat.driver.tls import TlsOptions
from narrowboat.dsn import Url
from narrowboat.errors import ConfigurationError

SCHEME = "rocketmq"
#: Where a proxy listens for gRPC, and a name server, unless the URL says otherwise.
PORT, ADMIN_PORT = 8081, 9876


@dataclass(frozen=True, kw_only=True)
class Options(TlsOptions):
    """`rocketmq://ak:sk@proxy:8081/namespace?admin=namesrv:9876&prefix=&declare=auto&queues=8&ca=`."""

    prefix: str = ""  #: a namespace of its own in the same namespace of the server; two prefixes never meet
    declare: Declare = Declare.AUTO  #: without an `admin` it is never
    admin: str = ""  #: the name server, which makes, counts and removes; "": nothing is made, counted or removed
    queues: int = 8  #: of topics that we create, on each broker; of an ordered one so many keys go on side by side

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, SCHEME, ("queues", 1, 128, "1 to 128"))

    @property
    def makes(self) -> bool:
        """Whether queues and topics are made on the way."""
        return bool(self.admin) and self.declare is Declare.AUTO


def endpoint(url: Url, options: Options) -> Endpoint:
    """The proxy, and as `database` the namespace; `ConfigurationError` for what this URL cannot mean.

    >>> str(endpoint(Url.parse("rocketmq://proxy/shop"), Options()))
    'rocketmq://proxy:8081/shop'
    """
    found = Endpoint.read(
        url,
        options,
        plain=SCHEME,
        port=PORT,
        one_host="Several proxies stand behind one name, or behind a load balancer: give that.",
        pair=True,
    )
    if "/" in found.database or not all(each.isascii() and (each.isalnum() or each in "-_") for each in found.database):
        raise ConfigurationError(
            "the path of the URL is a namespace of RocketMQ: letters, digits, '-' and '_' of ASCII", backend=found.scheme
        )
    admin(url, options)
    return found


def admin(url: Url, options: Options) -> HostPort | None:
    """The name server; None where the URL names none.

    >>> str(admin(Url.parse("rocketmq://proxy"), Options(admin="names")))
    'names:9876'
    """
    if not options.admin:
        return None
    try:
        parsed = Url.parse(f"{SCHEME}://{options.admin}")
        (host,) = parsed.hosts
        bare = parsed.username is None and parsed.password is None and not parsed.path and not parsed.query
    except (ConfigurationError, ValueError):
        bare = False
    if not bare:  # nothing of it is repeated: a password may have been typed there
        raise ConfigurationError("option admin is one host and port of a name server, such as namesrv:9876", backend=url.scheme)
    return HostPort(host.name, host.port or ADMIN_PORT)
