"""Who may look at the page of `narrowboat web`, and who may act: a decision on one request, without I/O."""

from __future__ import annotations

import enum
import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from narrowboat.dsn import Secret

#: Characters of a token. Nothing slows down who guesses, so it must be one that nobody guesses.
SHORTEST = 16


class Need(enum.Enum):
    """What a request asks for."""

    PAGE = enum.auto()  #: the page as it is shipped, which says nothing about the backend
    LOOK = enum.auto()
    ACT = enum.auto()


class Refused(Exception):
    """A request that is not answered as it was asked. Its text says what to do."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Access:
    """What a request needs."""

    token: Secret | None  #: without one nobody acts
    hosts: frozenset[str]  #: names by which the page is reached, beside localhost and addresses
    anyone_looks: bool  #: whether looking needs no token

    def check(self, method: str, headers: Mapping[str, str], need: Need) -> None:
        """Raise `Refused` for a request that must not be answered. `headers`: by lower-case name."""
        # A page of somebody else's, whose name was made to lead here (DNS rebinding), has that name as its host.
        host = host_of(headers.get("host", ""))
        if not (_is_address(host) or host == "localhost" or host in self.hosts):
            raise Refused(403, f"this page is not called {host!r:.99}: start narrowboat web with --host {host:.99}")
        # A form of another site's cannot send this type, and its script is not allowed to.
        if method == "POST" and headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refused(415, "expected a request of the type application/json")
        if need is Need.PAGE or (need is Need.LOOK and self.anyone_looks):
            return
        if self.token is None:
            raise Refused(403, "redrive and evict need a token: start narrowboat web with --token-file FILE")
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self.token.reveal().encode()):
            raise Refused(401, "this needs the token of --token-file" + (", and this is another one" if given else ""))


def host_of(host: str) -> str:
    """The host of a `Host` header or an address, without its port.

    >>> host_of("Shop.example.:8090"), host_of("[::1]:8090"), host_of("::1")
    ('shop.example', '::1', '::1')
    """
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    return host.lower().removesuffix(".")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
