"""The entry object: how a backend is found, what its URL takes, what it claims, how it is opened.

An entry point in the group `narrowboat.locks` or `narrowboat.brokers`, named by the URL's scheme, points at a
`LockBackend` or `BrokerBackend`. Making one imports no client library; `prepare` does. `capabilities` is a function of the
parsed options, so that what is not claimed is refused before anything is sent.

`prepare` is called once, when a user makes a face, on the thread that makes it and before anything is opened. There belongs
what must not be late: the import of the client library (some cannot be imported any more once the main thread has ended),
and what depends on the process as it is now, such as a relative path. It makes no connection. What it gives is the URL that
`open` gets, now and in forked children. A module that it misses becomes an error that says what to install.

`open` is called at the first use, never when a face is made, and may connect; it has `Context.timeout` for that. After a fork
it is called again in the child, which drops its parent's driver without closing it: sockets, files and threads of that one are
the parent's, and a finalizer of the driver must not touch them there (compare `os.getpid()`). The core refuses in the child
to settle, extend or renew what its parent holds.

`timeout` and `require` are the core's own: they are no fields of `options`, and their names are taken. Every backend has
`prefix: str = ""`, the namespace; two prefixes never meet, whatever they are joined with. A backend that claims `dedup` has
`dedup: float`, the window in seconds, and one that makes queues by itself `declare`, `auto` or `never`.

Errors: pass `backend=scheme` to each that you make, so that a program with several knows whose it is.

Name the submodules otherwise than the entry objects. An entry point `mine:locks` gives the module `mine.locks` as soon as
somebody has imported that, unless `mine/__init__.py` imports it first and then binds `locks` to the entry object.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from narrowboat.capabilities import BrokerCapabilities, LockCapabilities
from narrowboat.contract.locks import LockProvider
from narrowboat.contract.messages import Broker
from narrowboat.dsn import Url


@dataclass(frozen=True, kw_only=True)
class Context:
    """What the core hands to a driver when it opens it.

    `clock`: seconds as float, never goes back, and goes on while the machine sleeps where the system has such a clock.
    A driver that keeps time itself (leases, delays) uses this one and no other, so that tests can own it; one whose
    server keeps time ignores it. `watch` registers a callback for when that clock is moved by hand; drivers with timers
    of their own need it, others ignore it.
    `timeout`: seconds that one call may block.
    `doubt`, for locks: a driver that hears by itself that a grant may be gone (a watch, the end of its session) calls it with
    the grant's owner, or with None when it may be any of them. The core then renews what is in doubt at once, and believes
    that answer and nothing else, so a false alarm costs one exchange. From any thread, at any time; never blocks. What is
    heard before `attempt` has returned the grant is lost: it comes with the next renewal.
    `tell`, for messages: a driver that had to treat a message otherwise than it was asked to (a body that is too large for the
    dead letters) says so with the message's source, its id and a sentence. Listeners get `events.Malformed`, the log a
    warning. From any thread; never blocks.
    """

    clock: Callable[[], float]
    timeout: float
    watch: Callable[[Callable[[], None]], None] = lambda callback: None
    doubt: Callable[[str | None], None] = lambda owner: None
    tell: Callable[[str, str, str], None] = lambda source, id, problem: None


@dataclass(frozen=True, kw_only=True)
class LockBackend:
    """The entry object of a lock backend. `options` is a frozen dataclass; see `narrowboat.dsn.parse_options`."""

    scheme: str
    summary: str  #: one line for `narrowboat backends`
    options: type[Any]
    capabilities: Callable[[Url, Any], LockCapabilities]
    open: Callable[[Url, Any, Context], LockProvider]
    prepare: Callable[[Url, Any], Url] = lambda url, options: url
    extra: str | None = None  #: the extra to install, `pip install narrowboat[extra]`
    example: str = ""  #: a URL that is as it would be in a program, for `narrowboat backends`
    note: Callable[[str], str] = lambda scheme: ""  #: what else is to be known of a scheme on this machine, for the same
    system: str = ""  #: what OpenTelemetry's conventions call the product, where that is not the scheme


@dataclass(frozen=True, kw_only=True)
class BrokerBackend:
    """The entry object of a message backend. `options` is a frozen dataclass; see `narrowboat.dsn.parse_options`."""

    scheme: str
    summary: str
    options: type[Any]
    capabilities: Callable[[Url, Any], BrokerCapabilities]
    open: Callable[[Url, Any, Context], Broker]
    prepare: Callable[[Url, Any], Url] = lambda url, options: url
    extra: str | None = None
    example: str = ""
    note: Callable[[str], str] = lambda scheme: ""
    system: str = ""
