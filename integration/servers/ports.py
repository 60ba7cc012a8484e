"""Free TCP ports on the loopback address, for a server that must come back on the same one.

Ports are taken below the range that the kernel gives to outgoing connections: a client that tries a port of that range
while its server is down can be given that very port as its own end, connect to itself, and keep the server from it.
"""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path

LOOPBACK = "127.0.0.1"
_LOWEST = 10_240
_taken: set[int] = set()
#: Not the generator of the tests, which several processes of tests begin with one seed: they would take one port.
_chance = random.SystemRandom()


def free_port(*, distance: int = 0) -> int:
    """A port that nobody listens on and that this process was not given before.

    Args:
        distance: another port that must be free as well, this far above; 0 for none (a Redis cluster's bus needs one).
    """
    below = _first_ephemeral() - distance
    number, count = _process()
    for _ in range(1_000):
        port = _chance.randrange(_LOWEST + number, below, count)
        ports = {port, port + distance}
        if not ports & _taken and all(_free(each) for each in ports):
            _taken.update(ports)
            return port
    raise RuntimeError(f"no free port between {_LOWEST} and {below} on {LOOPBACK} after 1000 tries")


def listening(port: int) -> bool:
    """Whether somebody accepts connections on it."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True


def _process() -> tuple[int, int]:
    """Which of the processes of pytest-xdist this is, and of how many.

    Each takes every n-th port: a server is often given its port minutes before it listens there, and another process would see
    that it is free.
    """
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % count, count


def _first_ephemeral() -> int:
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        return 32_768  # no Linux: the usual lower end, or lower than it
    return first if first > _LOWEST + 4_000 else 60_999  # a machine that gives away nearly everything


def _free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: a closed connection is no owner
        try:
            listener.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
