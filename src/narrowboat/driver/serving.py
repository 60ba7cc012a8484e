"""What a server that `narrowboat serve` starts is handed, and the entry object by which it is found.

A server puts a protocol of its own in front of the drivers of another backend, so that they are reached over the network. It is
found by an entry point in the group `narrowboat.servers`, named by the scheme of `--bind`. It knows no URL and no backend: it
opens drivers by what it is handed, with the options that its clients may choose, and decides by their claims what it serves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from narrowboat.capabilities import BrokerCapabilities, LockCapabilities
from narrowboat.contract.locks import LockProvider
from narrowboat.contract.messages import Broker


@dataclass(frozen=True, kw_only=True)
class Served:
    """The backend that is served.

    `open_locks` and `open_broker` open a driver of its own with some options of the backend, such as `prefix`; they raise what
    opening it raises. The claims are those of the URL without such options.
    """

    scheme: str
    url: str  #: for people, without secrets
    locks: LockCapabilities
    messages: BrokerCapabilities
    open_locks: Callable[[Mapping[str, object]], LockProvider]
    open_broker: Callable[[Mapping[str, object]], Broker]


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How it is served: what the command line said."""

    bind: str  #: such as "tcp://127.0.0.1:5555"
    insecure: bool = False  #: without keys also where other machines reach it
    key: str | None = None  #: file of the server's secret key
    clients: str | None = None  #: file of the public keys that are let in
    health: str | None = None  #: "host:port" of /healthz and /metrics
    said: Callable[[str], None] = field(default=print)  #: told where it listens, and of each change of its state


@dataclass(frozen=True, kw_only=True)
class ServerProgram:
    """The entry object of a server. Making one imports no library."""

    scheme: str  #: of what is bound
    summary: str
    serve: Callable[[Served, Serving], None]  #: until SIGTERM or SIGINT; raises `ConfigurationError` for what it refuses
    keygen: Callable[[str], tuple[str, str]]  #: writes two files whose names begin so: a secret key and its public one
    extra: str | None = None
