"""The options of a `redis://` or `valkey://` URL, for locks and for messages, and how names become parts of keys.

`Common` has the options that both halves share.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from narrowboat.driver.names import escape_all
from narrowboat.driver.options import check_ranges, check_spans
from narrowboat.driver.sources import Declare
from narrowboat.driver.tls import TlsOptions
from narrowboat.dsn import Secret

#: The schemes without TLS, and the product that each names. A "s" behind one is the same with TLS.
PRODUCTS = {"redis": "Redis", "valkey": "Valkey"}
SCHEME = "redis"
#: What stands for itself in a part of a key.
SAFE = "-_.~@+=,"

#: More replicas than anybody runs. A typing mistake would otherwise let every call wait for its whole timeout.
WAIT_MAX = 16

#: Bytes: what an answer has beside messages must fit in any case.
REPLY_MIN = 1024 * 1024


class Durability(enum.Enum):
    """How durable the server has to be. The driver checks the server's settings at the first use."""

    MEMORY = "memory"  #: no check, and no claim: a restart may lose everything
    AOF = "aof"  #: it keeps an append-only file (appendonly yes): a killed server comes back with its data
    FSYNC = "fsync"  #: it also syncs that file before it answers (appendfsync always): its data survives a loss of power


@dataclass(frozen=True, kw_only=True)
class Common(TlsOptions):
    """The options of both halves."""

    prefix: str = ""  #: a namespace of its own on the same server; two prefixes never meet
    durability: Durability = Durability.MEMORY
    max_reply: int = 64 * 1024 * 1024  #: bytes of one answer of the server at most
    sentinel_username: str | None = None  #: of the sentinels themselves, which do not take the servers' users
    sentinel_password: Secret | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, SCHEME, ("max_reply", REPLY_MIN, math.inf, f"{REPLY_MIN} bytes or more"))


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """`redis://host:6379/0?prefix=&durability=memory&wait=0`."""

    wait: int = 0  #: replicas that must have a grant or renewal before it is answered

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, SCHEME, ("wait", 0, WAIT_MAX, f"0 to {WAIT_MAX}, the replicas that must have a grant first"))


@dataclass(frozen=True, kw_only=True)
class MessageOptions(Common):
    """`redis://host:6379/0?prefix=&durability=memory&declare=auto&dedup=300`."""

    declare: Declare = Declare.AUTO
    dedup: float = 300.0  #: seconds for which a second message of the same id is dropped; 0: never

    def __post_init__(self) -> None:
        super().__post_init__()
        check_spans(SCHEME, dedup=self.dedup)


def tag(text: str) -> bytes:
    """`text` as a part of a key: escaped where a character separates parts, or has a meaning in a cluster or a pattern.

    >>> tag("shop:{1}*"), tag("Füße")
    (b'shop%3A%7B1%7D%2A', b'F%C3%BC%C3%9Fe')
    """
    return escape_all(text, SAFE).encode("ascii")
