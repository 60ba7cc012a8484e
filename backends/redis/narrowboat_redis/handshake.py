"""TLS handshakes that no fork can cut in two.

OpenSSL takes locks of the whole process while it sets up a connection. A child that is forked while another thread holds one
inherits it taken, by a thread that does not exist there, and hangs in its own first handshake. So a fork waits here until
no thread is inside OpenSSL for a handshake, and a handshake begins no step during a fork. A step only computes; what it
waits for from the network is waited for outside, so a server that is slow or silent holds up no fork and no other handshake.

Not covered: connections that others make, with libraries of their own.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Held by each step and by each fork. One thread may take it again: a signal's handler may fork in the middle of a step.
_apart = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_apart.acquire, after_in_parent=_apart.release, after_in_child=_apart.release)


def step(work: Callable[[], T]) -> T:
    """Do `work`, which must not wait for anything, while no fork is under way."""
    with _apart:
        return work()


def secure(plain: socket.socket, context: ssl.SSLContext, name: str) -> ssl.SSLSocket:
    """`plain`, connected to the server of that name, with TLS around it, within the time-out of `plain`.

    Raises TimeoutError, or what ssl and the socket raise; the connection is closed then.
    """
    timeout = plain.gettimeout()
    ends = None if timeout is None else time.monotonic() + timeout
    secured = None
    try:
        plain.settimeout(0.0)
        secured = step(lambda: context.wrap_socket(plain, server_hostname=name, do_handshake_on_connect=False))
        while True:
            try:
                step(secured.do_handshake)
                break
            except ssl.SSLWantReadError:
                _await(secured, select.POLLIN, ends)
            except ssl.SSLWantWriteError:
                _await(secured, select.POLLOUT, ends)
        secured.settimeout(timeout)
    except BaseException:  # an interrupt included: nobody else knows of this connection
        (secured or plain).close()
        raise
    return secured


def _await(connection: ssl.SSLSocket, event: int, ends: float | None) -> None:
    poller = select.poll()
    poller.register(connection, event)
    left = None if ends is None else ends - time.monotonic()
    if (left is not None and left <= 0) or not poller.poll(None if left is None else left * 1000 + 1):
        raise TimeoutError("the TLS handshake timed out")
