"""The context of a TLS connection, whose handshakes no fork can cut in two.

OpenSSL takes locks of the whole process while it sets up a connection. A child that is forked while another thread holds one
inherits it taken, by a thread that does not exist there, and hangs in its own first handshake. So a fork waits here until
no thread is inside OpenSSL for a handshake, and a handshake begins no step during a fork. A step only computes; what it
waits for from the network is waited for outside, so a server that is slow or silent holds up no fork and no other handshake.

`TlsOptions.context` makes one. It is used like any `ssl.SSLContext`, by client libraries as well.

Not covered: connections that are made with other contexts.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

#: Held by each step and by each fork. One thread may take it again: a signal's handler may fork in the middle of a step.
_apart = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_apart.acquire, after_in_parent=_apart.release, after_in_child=_apart.release)


def step(work: Callable[[], T]) -> T:
    """Do `work`, which must not wait for anything, while no fork is under way."""
    with _apart:
        return work()


class Socket(ssl.SSLSocket):
    """A socket whose handshake is made of steps, within its time-out as a whole."""

    def do_handshake(self, block: bool = False) -> None:
        """As `ssl.SSLSocket`'s, but a failure closes it. An end in the middle is a `ConnectionError` that says so."""
        timeout = self.gettimeout()
        if timeout == 0.0 and not block:
            self._step()
            return
        ends = None if not timeout else time.monotonic() + timeout
        self.settimeout(0.0)
        while (event := self._wanted()) is not None:
            _await(self, event, ends)
        self.settimeout(timeout)

    def _wanted(self) -> int | None:
        """What to wait for, None once it is done. Waiting is outside of `except`: a time-out is caused by no failure of TLS."""
        try:
            self._step()
        except ssl.SSLWantReadError:
            return select.POLLIN
        except ssl.SSLWantWriteError:
            return select.POLLOUT
        return None

    def _step(self) -> None:
        try:
            step(super().do_handshake)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError as error:
            self.close()  # not every client library does, where it steps through the handshake itself
            if not isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError)):
                raise
            # The commonest reason is a port without TLS, and without these words nobody thinks of it.
            raise ConnectionResetError("the server closed the connection during the TLS handshake") from error


class Object(ssl.SSLObject):
    """The same for libraries that carry the bytes themselves."""

    def do_handshake(self) -> None:
        """As `ssl.SSLObject`'s, which never waits."""
        step(super().do_handshake)


class Context(ssl.SSLContext):
    """See the module's text."""

    sslsocket_class = Socket
    sslobject_class = Object

    def wrap_socket(
        self,
        sock: socket.socket,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> Socket:
        """As `ssl.SSLContext`'s, for a connected socket. It is closed where the handshake fails."""
        make = super().wrap_socket
        secured = step(lambda: make(sock, server_side, False, suppress_ragged_eofs, server_hostname, session))
        assert isinstance(secured, Socket)
        if do_handshake_on_connect:
            try:
                secured.do_handshake()
            except BaseException:  # an interrupt included: nobody else knows of this connection
                secured.close()
                raise
        return secured

    def wrap_bio(self, *arguments: Any, **named: Any) -> Object:
        """As `ssl.SSLContext`'s."""
        make = super().wrap_bio
        secured = step(lambda: make(*arguments, **named))
        assert isinstance(secured, Object)
        return secured


def context(ca: str | None, *, signed: bool, named: bool) -> Context:
    """Python's default context, whatever this version makes of that, with the authorities in `ca` or the system's.

    `signed`: one of them has to have signed the certificate; `named`: and it has to name the host in its subjectAltName. Its
    common name is no proof of anything (RFC 9525).
    """
    made = ssl.create_default_context(cafile=ca)
    made.__class__ = Context  # made by Python's own function, so what it adds to a context in later versions is kept
    made.hostname_checks_common_name = False
    made.check_hostname = named
    if not signed:
        made.verify_mode = ssl.CERT_NONE
    assert isinstance(made, Context)
    return made


def _await(connection: ssl.SSLSocket, event: int, ends: float | None) -> None:
    poller = select.poll()
    poller.register(connection, event)
    left = None if ends is None else ends - time.monotonic()
    if (left is not None and left <= 0) or not poller.poll(None if left is None else left * 1000 + 1):
        raise TimeoutError("the TLS handshake timed out")
