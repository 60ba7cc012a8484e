"""What a `zmq://host:5555/namespace` URL takes: the options of both halves, those of messages, and where the server is."""

from __future__ import annotations

import enum
import os
import re
from dataclasses import dataclass

from narrowboat.driver.endpoint import Endpoint
from narrowboat.driver.options import check_spans
from narrowboat.driver.sources import Declare
from narrowboat.driver.tls import TlsOptions
from narrowboat.dsn import Url
from narrowboat.errors import ConfigurationError

SCHEME = "zmq"
#: The scheme whose connections are encrypted, and both of whose ends have shown who they are.
SECURE = "zmqs"
PORT = 5555

#: What a namespace may be called. It stands before a slash and the prefix, so it has none itself.
NAMESPACE = re.compile(r"[A-Za-z0-9._-]{0,64}")
#: Characters of a prefix.
PREFIX_MAX = 500


class Durability(enum.Enum):
    """The worst event that what was answered outlives. The server decides; a client says what it stands on."""

    FULL = "full"  #: loss of power: refused by a server that does not sync each commit
    NORMAL = "normal"  #: a crash of any process


@dataclass(frozen=True, kw_only=True)
class Options:
    """`zmqs://host:5555/namespace?prefix=&durability=full&server_key=server.public&key=client.secret`."""

    prefix: str = ""  #: a namespace of its own in that of the path; two prefixes never meet
    durability: Durability = Durability.FULL  #: what the server must keep, or more
    server_key: str | None = None  #: file of the server's public key
    key: str | None = None  #: file of our own secret key

    def __post_init__(self) -> None:
        for name in ("server_key", "key"):
            path = getattr(self, name)
            if path is not None and (not path or "\0" in path):
                raise ConfigurationError(f"option {name}: give the path of a file that `narrowboat serve --keygen` wrote")
            if path is not None:  # a program that changes its folder, or a child of it, still means the same file
                object.__setattr__(self, name, os.path.abspath(path))
        if len(self.prefix) > PREFIX_MAX:
            raise ConfigurationError(f"option prefix: up to {PREFIX_MAX} characters are allowed")


@dataclass(frozen=True, kw_only=True)
class MessageOptions(Options):
    """The same, and `&declare=auto&dedup=300&retention=0`."""

    declare: Declare = Declare.AUTO
    dedup: float = 300.0  #: seconds for which a second message of the same id is dropped; 0: never
    retention: float = 0.0  #: seconds for which topics keep messages for subscriptions that begin at the earliest; 0: none

    def __post_init__(self) -> None:
        super().__post_init__()
        check_spans(SCHEME, dedup=self.dedup, retention=self.retention)


def endpoint(url: Url, options: Options) -> Endpoint:
    """The server that `url` names, and as `database` the namespace.

    >>> str(endpoint(Url.parse("zmq://box/shop"), Options()))
    'zmq://box:5555/shop'
    """
    found = Endpoint.read(
        url,
        TlsOptions(),
        plain=SCHEME,
        port=PORT,
        one_host="A narrowboat serve is one process on one file; name the one that has yours.",
    )
    if found.user is not None or found.secret is not None:
        raise ConfigurationError(
            f"{url.scheme}:// takes no user and no password: who a client is, its key says, in {SECURE}://host?key=",
            backend=url.scheme,
        )
    if NAMESPACE.fullmatch(found.database) is None:
        raise ConfigurationError(
            f"the namespace {found.database[:80]!r} of the URL: up to 64 letters, digits and . _ - are allowed; put what needs "
            "other characters into ?prefix=",
            backend=url.scheme,
        )
    given = [name for name in ("server_key", "key") if getattr(options, name) is not None]
    if found.tls and len(given) < 2:
        raise ConfigurationError(
            f"{SECURE}:// needs ?server_key= (the server's public key) and &key= (our own secret key): files that "
            "`narrowboat serve --keygen` writes",
            backend=url.scheme,
        )
    if given and not found.tls:
        raise ConfigurationError(
            f"option {given[0]} is for CURVE, and {url.scheme}:// does not use it: write {SECURE}:// instead",
            backend=url.scheme,
        )
    return found
