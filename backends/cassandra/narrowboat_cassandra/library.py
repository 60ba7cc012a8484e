"""All names of cassandra-driver that it does not promise, and their one use: a connection that tells why it failed.

The library wraps a socket in TLS before it connects, and gives an error of TLS back as a text without its type. A context
of ours shakes hands step by step once there is a connection. So `Connection` makes the socket itself. The class stands on
whichever of the library's reactors it has chosen for this interpreter.

The library also closes all clusters at the exit of a process. In a forked child those are the parent's, whose threads are not
there: a fork takes them off that list.

`UNPROMISED` lists each name with its reason. tests/backends/test_cassandra_library.py fails by name when one is dropped. No
other file uses such a name. Nothing here knows a lock.
"""

from __future__ import annotations

import os
import socket
import weakref
from typing import Any

from cassandra import cluster
from cassandra.cluster import Cluster

from narrowboat.driver.quiet import quiet

quiet("cassandra")

#: The names, by what has them, and what each is needed for.
UNPROMISED = {
    "Connection._connect_socket": "overridden: connects first, and lets an error of TLS be one",
    "Connection._socket": "the socket that the reactor reads from",
    "Connection._get_socket_addresses": "the addresses of a host",
    "cluster._discard_cluster_shutdown": "a child does not close its parent's cluster",
    "cluster.DefaultConnection": "the reactor that was chosen",
}


class Connection(cluster.DefaultConnection):  # type: ignore[misc]  # the library has no annotations
    """See the module's text."""

    def _connect_socket(self) -> None:
        failure: OSError = ConnectionRefusedError("the host has no address")
        for family, kind, protocol, _, address in self._get_socket_addresses():
            plain = socket.socket(family, kind, protocol)
            try:
                plain.settimeout(self.connect_timeout)
                plain.connect(address)
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._socket = self._secured(plain)
                self._socket.settimeout(None)
            except OSError as error:
                plain.close()
                failure = error
            except BaseException:  # an interrupt as well: nobody else knows of the socket
                plain.close()
                raise
            else:
                return
        raise failure

    def _secured(self, plain: socket.socket) -> Any:
        if self.ssl_context is None:
            return plain
        name = self.endpoint.address if self.ssl_context.check_hostname else None
        return self.ssl_context.wrap_socket(plain, server_hostname=name)


#: The clusters of this process. A fork takes them off the library's list.
_mine: weakref.WeakSet[Cluster] = weakref.WeakSet()


def keep_to_this_process(made: Cluster) -> None:
    """Let no child of this process close `made` when it exits."""
    _mine.add(made)


def _leave() -> None:
    for made in list(_mine):
        cluster._discard_cluster_shutdown(made)
    _mine.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave)
