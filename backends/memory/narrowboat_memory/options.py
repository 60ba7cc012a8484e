"""What a `memory://name` URL takes beside its name: `Options` for locks, `MessageOptions` for messages."""

from __future__ import annotations

from dataclasses import dataclass

from narrowboat.driver.options import check_spans
from narrowboat.driver.sources import Declare
from narrowboat.dsn import Url
from narrowboat.errors import ConfigurationError

SCHEME = "memory"


@dataclass(frozen=True, kw_only=True)
class Options:
    """`memory://name?prefix=`."""

    prefix: str = ""  #: a namespace of its own in the same space; two prefixes never meet


@dataclass(frozen=True, kw_only=True)
class MessageOptions(Options):
    """`memory://name?prefix=&declare=auto&dedup=300&retention=0`."""

    declare: Declare = Declare.AUTO
    dedup: float = 300.0  #: seconds for which a second message of the same id is dropped; 0: never
    retention: float = 0.0  #: seconds for which topics keep messages for subscriptions that begin at the earliest; 0: none

    def __post_init__(self) -> None:
        check_spans(SCHEME, dedup=self.dedup, retention=self.retention)


def space_name(url: Url) -> str:
    """The name of the space that `url` names; the empty one is the process's default."""
    if url.driver is not None or url.username is not None or url.password is not None or url.path or len(url.hosts) > 1:
        raise ConfigurationError(
            f"{SCHEME}:// takes one name and nothing else: {SCHEME}://, {SCHEME}://shop or {SCHEME}://shop?prefix=eu",
            backend=SCHEME,
        )
    if not url.hosts:
        return ""
    if url.hosts[0].port is not None:
        raise ConfigurationError(f"{SCHEME}:// takes a name without a port: {SCHEME}://{url.hosts[0].name}", backend=SCHEME)
    return url.hosts[0].name
