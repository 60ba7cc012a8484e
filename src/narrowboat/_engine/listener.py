"""A TCP port of our own, for what answers over HTTP: an address of a user's, and the socket that listens there.

It accepts no connection and speaks no protocol: that is its caller's.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from typing import Any

from narrowboat.errors import ConfigurationError

#: Host of an address that is only a port: nobody else's machine reaches it.
LOOPBACK = "127.0.0.1"
#: Of an address of IPv6 on a machine without it.
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def listen(address: str, doing: str, state: str) -> socket.socket:
    """A socket that listens at `address`.

    Args:
        address: `HOST:PORT`, `[HOST]:PORT`, or a port alone on loopback; port 0 takes a free one.
        doing: what cannot be done without it, for errors: "answer probes".
        state: what is true after an error, for its text: "Nothing was consumed".

    Raises:
        ConfigurationError: no address, or it cannot be bound, for example because the port is taken.
    """
    host, port = _parsed(address, doing)
    try:
        return _first(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except (OSError, ValueError) as error:  # a ValueError is a name that cannot be asked for: an empty label, one too long
        why = getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"cannot {doing} at {address!r:.99}: {why}. {state}; take another port, or end what has this one"
        ) from error


def address_of(listener: socket.socket) -> str:
    """Where it listens, with the port that was taken, as a URL has it."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _first(found: Sequence[tuple[Any, ...]]) -> socket.socket:
    """At the first address of a name that this machine has. A port that is taken there is taken, whatever the others are."""
    for family, kind, protocol, _, where in found:
        try:
            listener = socket.socket(family, kind, protocol)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(where)
                listener.listen(128)
                return listener
            except BaseException:  # an interrupt included: nobody else knows of it
                listener.close()
                raise
        except OSError as error:
            if error.errno not in _NOT_HERE or where == found[-1][-1]:
                raise
    raise OSError("it has no address")


def _parsed(address: object, doing: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":") if isinstance(address, str) else ("", ":", "")
    if not colon:
        host = LOOPBACK
    elif host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        port = ""  # an IPv6 address without its brackets
    if not host or not (port.isascii() and port.isdecimal() and len(port) <= 5) or int(port) > 65535:
        raise ConfigurationError(
            f"cannot {doing} at {address!r:.99}: expected HOST:PORT such as {LOOPBACK}:8080, [::1]:8080, or a port alone"
        )
    return host, int(port)
