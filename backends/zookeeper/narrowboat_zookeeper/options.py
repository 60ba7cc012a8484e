"""What a `zookeeper://` URL takes beside its hosts, and what its parts come to. Nothing here imports a client library."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from narrowboat.driver.tls import TlsOptions
from narrowboat.dsn import Secret, Url
from narrowboat.errors import ConfigurationError

SCHEME = "zookeeper"
TLS_SCHEME = "zookeepers"
PORT = 2181

#: Seconds. Longer sessions than this no server grants unless it is told to, and its holder's crash would block for hours.
SESSION_MAX = 3600.0
#: Bytes. What servers take as one record unless they are told otherwise (jute.maxbuffer), so an answer may have as many.
REPLY_MIN = 1024 * 1024


class Acl(enum.Enum):
    """Who may do what to the nodes that are made here."""

    OPEN = "open"  #: anybody anything
    CREATOR = "creator"  #: only the URL's user; everybody who shares a lock is then that user
    READ = "read"  #: the URL's user anything, anybody may look


@dataclass(frozen=True, kw_only=True)
class Options(TlsOptions):
    """`zookeeper://user:password@a:2181,b:2181,c:2181/chroot?session_ttl=20&tick=2&create=false&prefix=&acl=open`."""

    prefix: str = ""  #: a namespace of its own under the same chroot; two prefixes never meet
    session_ttl: float = 20.0  #: seconds; how long the servers keep the session of a client that is silent
    tick: float = 2.0  #: seconds; the servers' tickTime: what their clock of sessions may be off
    create: bool = False  #: whether the URL's path is made when it is not there
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
        if not REPLY_MIN <= self.max_reply < 2**31:
            raise ConfigurationError(
                f"option max_reply={self.max_reply}: expected {REPLY_MIN} bytes (what a server takes as one record) to "
                f"{2**31 - 1}",
                backend=SCHEME,
            )
        if not 2 * self.tick <= self.session_ttl <= SESSION_MAX:
            raise ConfigurationError(
                f"option session_ttl={self.session_ttl:g}: allowed are {2 * self.tick:g} (two ticks, the shortest that servers "
                f"grant) to {SESSION_MAX:g} seconds; for servers with a shorter tickTime say so with tick=",
                backend=SCHEME,
            )


@dataclass(frozen=True, kw_only=True, repr=False)
class Site:
    """Where the ensemble is and how to talk to it."""

    hosts: tuple[str, ...]  #: as host:port
    tls: bool
    base: str  #: the chroot, "" for the root
    username: str | None
    password: Secret | None
    acl: Acl
    options: Options

    @classmethod
    def of(cls, url: Url, options: Options) -> Site:
        """What `url` says; `ConfigurationError` where it makes no sense for ZooKeeper."""
        backend = url.scheme
        if url.driver is not None:
            raise ConfigurationError(f"{backend}+{url.driver}:// is not known; use {backend}://", backend=backend)
        if url.username is None and url.password is not None:
            raise ConfigurationError(
                f"{backend}:// with a password needs a user name: {backend}://user:***@host", backend=backend
            )
        if url.username is not None and (url.password is None or ":" in url.username):
            raise ConfigurationError(
                f"{backend}:// with a user needs a password as well, and no ':' in the name: digest authentication takes both",
                backend=backend,
            )
        base = url.path.strip("/")
        if base and any(part in ("", ".", "..") or not part.isprintable() for part in base.split("/")):
            raise ConfigurationError(
                f"the path /{url.path} has an empty, '.', '..' or unprintable part; ZooKeeper takes none of these",
                backend=backend,
            )
        acl = options.acl or (Acl.CREATOR if url.username is not None else Acl.OPEN)
        if acl is not Acl.OPEN and url.username is None:
            raise ConfigurationError(
                f"option acl={acl.value}: without a user in the URL nobody could use the nodes; name one, or leave acl away",
                backend=backend,
            )
        options.check(url, secure=TLS_SCHEME)
        hosts = url.hosts or (_LOCAL,)
        return cls(
            hosts=tuple(f"[{name}]:{port or PORT}" if ":" in name else f"{name}:{port or PORT}" for name, port in hosts),
            tls=backend == TLS_SCHEME,
            base=f"/{base}" if base else "",
            username=url.username,
            password=url.password,
            acl=acl,
            options=options,
        )

    @property
    def scheme(self) -> str:
        """As in the URL."""
        return TLS_SCHEME if self.tls else SCHEME

    def __repr__(self) -> str:
        return f"{self.scheme}://{','.join(self.hosts)}{self.base}"


_LOCAL = ("127.0.0.1", None)


def free_after(session_ttl: float, tick: float) -> float:
    """Seconds after which the lock of a holder that died is free at the latest.

    The server rounds the end of a session up to its next tick, and a follower tells its leader of a client's last sign of
    life within another.
    """
    return session_ttl + 2 * tick
