"""Cassandra: every name of cassandra-driver that it does not promise is still there, with the shape that is relied on."""

from __future__ import annotations

import inspect
import os
import socket
import threading
import time

import pytest
from cassandra import cluster, connection
from cassandra.connection import DefaultEndPoint

from narrowboat_cassandra import library
from narrowboat_cassandra.library import UNPROMISED, Connection


@pytest.mark.parametrize("name", [name for name in UNPROMISED if name != "Connection._socket"])
def test_a_name_that_the_library_does_not_promise_is_still_there(name: str) -> None:
    """If not: look what took its place, and change library.py alone."""
    owner, _, attribute = name.partition(".")
    assert hasattr({"Connection": connection.Connection, "cluster": cluster}[owner], attribute), UNPROMISED[name]


def test_what_is_overridden_takes_what_it_took() -> None:
    """And is called by the constructor of the reactor's class, so that ours is."""
    theirs = inspect.signature(connection.Connection._connect_socket)
    assert list(theirs.parameters) == list(inspect.signature(Connection._connect_socket).parameters)
    assert "_connect_socket()" in inspect.getsource(cluster.DefaultConnection.__init__)


def test_a_connection_begins_with_a_frame_of_the_protocol() -> None:
    """Our socket is the one that the reactor writes to: it asks for the options, and what is no answer ends it, in time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        seen: list[bytes] = []

        def answer() -> None:
            line, _ = listener.accept()
            with line:
                seen.append(line.recv(9))
                line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        Connection.initialize_reactor()
        begun = time.monotonic()
        with pytest.raises(connection.ProtocolError):
            Connection.factory(DefaultEndPoint("127.0.0.1", listener.getsockname()[1]), 20.0, protocol_version=4)
        thread.join()
    assert seen[0][0] == 4 and seen[0][4] == 5
    assert time.monotonic() - begun < 15


def test_a_child_closes_no_cluster_of_its_parents() -> None:
    """It exits with its code, at once, and the parent's cluster is still on the list of those that are closed at exit."""
    made = cluster.Cluster(["127.0.0.1"], protocol_version=4)
    cluster._register_cluster_shutdown(made)
    library.keep_to_this_process(made)
    try:
        child = os.fork()
        if child == 0:
            os._exit(int(made in cluster._clusters_for_shutdown))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert made in cluster._clusters_for_shutdown
    finally:
        cluster._discard_cluster_shutdown(made)
        made.shutdown()
