"""The options of a `zookeeper://` URL, and what its parts mean. Nothing here imports a client library."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from narrowboat.driver.endpoint import Endpoint
from narrowboat.driver.options import check_ranges
from narrowboat.driver.tls import TlsOptions
from narrowboat.dsn import Url
from narrowboat.errors import ConfigurationError

SCHEME = "zookeeper"
TLS_SCHEME = "zookeepers"

#: Seconds. No server grants a longer session unless it is configured to, and a holder's crash would block for hours.
SESSION_MAX = 3600.0
#: Bytes. The servers' default for the largest record (jute.maxbuffer), so an answer may have as many.
REPLY_MIN = 1024 * 1024


class Acl(enum.Enum):
    """The rights to the nodes that this driver makes."""

    OPEN = "open"  #: all users may do anything
    CREATOR = "creator"  #: only the URL's user has rights; all programs that share a lock log in as that user
    READ = "read"  #: the URL's user may do anything, all others may read


@dataclass(frozen=True, kw_only=True)
class Options(TlsOptions):
    """`zookeeper://user:password@a:2181,b:2181,c:2181/chroot?session_ttl=20&tick=2&create=false&prefix=&acl=open`."""

    prefix: str = ""  #: a namespace of its own under the same chroot; two prefixes never meet
    session_ttl: float = 20.0  #: seconds that the servers keep the session of a silent client
    tick: float = 2.0  #: seconds; the servers' tickTime, by which the end of a session may be late
    create: bool = False  #: whether to make the URL's path where it does not exist
    acl: Acl | None = None  #: None: `creator` where the URL has a user, otherwise `open`
    share: bool = True  #: with a user: whether other users may look at `narrowboat` and make prefixes of their own in it
    max_reply: int = 16 * 1024 * 1024  #: bytes of one answer, at most; 100,000 nodes in one listing have 5 MB

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.tick <= 60:
            raise ConfigurationError(
                f"option tick={self.tick:g}: expected the servers' tickTime in seconds, more than 0 and up to 60",
                backend=SCHEME,
            )
        least = 2 * self.tick
        from_two_ticks = f"{least:g} (two ticks, the shortest that servers grant) to {SESSION_MAX:g} seconds"
        check_ranges(
            self,
            SCHEME,
            ("max_reply", REPLY_MIN, 2**31 - 1, f"{REPLY_MIN} bytes (what a server takes as one record) to {2**31 - 1}"),
            ("session_ttl", least, SESSION_MAX, f"{from_two_ticks}; for servers with a shorter tickTime say so with tick="),
        )


@dataclass(frozen=True, kw_only=True, repr=False)
class Ensemble(Endpoint):
    """The servers, and how to connect to them."""

    options: Options

    @classmethod
    def of(cls, url: Url, options: Options) -> Ensemble:
        """The ensemble that `url` names; `ConfigurationError` where ZooKeeper does not take such a URL."""
        ensemble = cls.read(url, options, plain=SCHEME, port=2181, host="127.0.0.1", pair=True, options=options)
        if ensemble.user is not None and ":" in ensemble.user:
            raise ConfigurationError(
                f"{url.scheme}:// takes no ':' in the name of a user: digest authentication puts one behind it",
                backend=url.scheme,
            )
        if ensemble.acl is not Acl.OPEN and ensemble.user is None:
            raise ConfigurationError(
                f"option acl={ensemble.acl.value}: without a user in the URL nobody could use the nodes; name one, or leave "
                "acl away",
                backend=url.scheme,
            )
        ensemble.folder()
        return ensemble

    @property
    def acl(self) -> Acl:
        """The rights to the nodes that this driver makes, with the default resolved."""
        return self.options.acl or (Acl.CREATOR if self.user is not None else Acl.OPEN)

    @property
    def base(self) -> str:
        """The path above all nodes, "" for the root."""
        folder = self.folder()
        return f"/{folder}" if folder else ""


def free_after(session_ttl: float, tick: float) -> float:
    """Seconds after which the lock of a dead holder is free at the latest.

    The server rounds the end of a session up to its next tick. A follower reports a client's last heartbeat to its leader
    life within another.
    """
    return session_ttl + 2 * tick
