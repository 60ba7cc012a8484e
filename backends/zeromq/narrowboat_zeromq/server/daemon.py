"""`narrowboat serve` as a good daemon: what it refuses to serve, signals, systemd, and the way to its end.

SIGTERM and SIGINT drain: what has arrived is done and answered, and the clients are told. The drivers are not closed, because
that would give back what consumers are still busy with: they settle it at the server that comes next. SIGHUP reads the
clients' keys again. All of it is state in the file, so whatever ends this process, the next one goes on where it was.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator

from narrowboat.capabilities import Expiry, LeaseNature, Scope
from narrowboat.driver.serving import Served, Serving
from narrowboat.errors import ConfigurationError, NarrowboatError
from narrowboat_zeromq import keys
from narrowboat_zeromq.library import Error, Hub
from narrowboat_zeromq.server.health import Health
from narrowboat_zeromq.server.router import Router

logger = logging.getLogger("narrowboat.zeromq")

#: The backends with which this server was proven. Another one may think otherwise of tags, threads or what a session is.
PROVEN = ("sqlite",)
#: Milliseconds for which the last answers may still go out.
_LINGER = 2000


def serve(served: Served, serving: Serving) -> None:
    """Serve until SIGTERM or SIGINT. Raises `ConfigurationError` for what it does not serve, or where it cannot listen."""
    refuse(served)
    host = check_bind(serving)
    known = _Known(serving.clients)
    own = keys.read_pair(serving.key, "--key") if serving.key is not None else None
    try:
        hub = Hub(serving.bind, own, known.__contains__)
    except Error as error:
        raise ConfigurationError(
            f"--bind {serving.bind}: {error.strerror}. Is another server there, or is it no address of this machine?"
        ) from error
    router = Router(hub, served)
    try:
        # The file is opened before anybody is told that we are ready: what is wrong with it ends us here.
        served.open_locks({}).close()
        with Health(serving.health, router) as health, _signals(router, known, serving):
            serving.said(f"serving {served.url} at {hub.address}{'' if own else ', without keys'} ({host})")
            if health is not None:
                serving.said(f"/healthz and /metrics at http://{health}")
            notify(f"READY=1\nSTATUS=serving {served.url} at {hub.address}")
            router.run()
            notify("STOPPING=1")
    finally:
        hub.close(linger=_LINGER)
    serving.said("ended in order")


def refuse(served: Served) -> None:
    """`ConfigurationError` for a backend that is not for this server."""
    locks, messages = served.locks, served.messages
    if served.scheme not in PROVEN:
        raise ConfigurationError(
            f"{served.url}: narrowboat serve was proven with {', '.join(f'{each}://' for each in PROVEN)} alone, and serves "
            "nothing else. A backend with a server of its own needs none in front of it.",
            backend=served.scheme,
        )
    if (
        locks.expiry is not Expiry.LEASE
        or messages.lease is not LeaseNature.MESSAGE
        or Scope.PROCESS in (locks.scope, messages.scope)
    ):
        raise ConfigurationError(
            f"{served.url}: its locks or messages hang on a connection or a process", backend=served.scheme
        )


def check_bind(serving: Serving) -> str:
    """What is said of who can reach it; `ConfigurationError` for an address that would let in anybody."""
    scheme, _, rest = serving.bind.partition("://")
    host, _, port = rest.rpartition(":")
    host = host.strip("[]")
    if scheme != "tcp" or not host or not ((port.isdecimal() and int(port) < 65536) or port == "*"):  # ports
        raise ConfigurationError(f"--bind {serving.bind}: write tcp://ADDRESS:PORT, such as tcp://127.0.0.1:5555")
    if (serving.key is None) != (serving.clients is None):
        raise ConfigurationError(
            "--key and --clients belong together: the server's secret key, and a file of the public keys that are let in"
        )
    if serving.key is not None:
        return "for the clients whose keys are known"
    if _loopback(host):
        return "for this machine alone"
    if not serving.insecure:
        raise ConfigurationError(
            f"--bind {serving.bind} is reached by other machines, and without keys whoever reaches it may do anything. Give "
            "--key and --clients (`narrowboat serve --keygen NAME` makes keys), or bind 127.0.0.1; or say --insecure, where "
            "the network itself lets nobody in."
        )
    return "for whoever reaches it: insecure"


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Known:
    """The public keys that are let in: a file, read again when it is told to."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._keys = keys.read_publics(path, "--clients") if path is not None else frozenset()

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def read_again(self, serving: Serving) -> None:
        """What is there now; what was known stays, where the file is none of keys any more."""
        if self._path is None:
            serving.said("SIGHUP: there is no --clients to read again")
            return
        try:
            self._keys = keys.read_publics(self._path, "--clients")
        except NarrowboatError as error:
            serving.said(f"SIGHUP: the keys that were known stay: {error}")
        else:
            serving.said(f"SIGHUP: {len(self._keys)} clients are known; who is connected stays so")


@contextlib.contextmanager
def _signals(router: Router, known: _Known, serving: Serving) -> Iterator[None]:
    handlers = {
        signal.SIGTERM: lambda *_: router.stop(),
        signal.SIGINT: lambda *_: router.stop(),
        signal.SIGHUP: lambda *_: router.later(lambda: known.read_again(serving)),
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def notify(state: str) -> None:
    """Tell systemd, where it has started us and wants to know: a datagram to NOTIFY_SOCKET."""
    where = os.environ.get("NOTIFY_SOCKET", "")
    if not where.startswith(("/", "@")):
        return
    address = "\0" + where[1:] if where.startswith("@") else where
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as told:
            told.sendto(state.encode(), address)
    except OSError as error:
        print(f"systemd could not be told ({error})", file=sys.stderr)
