"""All names of kazoo that it does not promise, and their one use: to put bounds on its connection.

kazoo believes what a server sends. It allocates memory for any length that a server announces. A message that it cannot parse
ends its I/O thread for good, and every later call of that client fails, against a healthy server too. A server that accepts a
connection and stays silent keeps kazoo from the other hosts. kazoo does not say which session time a server granted. It has no
hooks for any of this, so `Connection` overrides four of its methods. It breaks such a connection off, and kazoo makes a new one
in the same session.

`UNPROMISED` lists each name with its reason. tests/backends/test_zookeeper_library.py fails by name when kazoo drops one. No
other file uses such a name. Nothing here knows a lock, or what a request was for.
"""

from __future__ import annotations

import time
from typing import Any

from kazoo.exceptions import ConnectionDropped, ConnectionLoss
from kazoo.protocol.connection import ConnectionHandler
from kazoo.protocol.serialization import Connect
from kazoo.protocol.states import KeeperState
from kazoo.retry import ForceRetryError, RetryFailedError

#: The names, by the class that has them, and what each is needed for.
UNPROMISED = {
    "ConnectionHandler._invoke": "overridden: bounds the handshake, and keeps the session time that was granted",
    "ConnectionHandler._read": "overridden: bounds the length of an answer, and the time for the whole of it",
    "ConnectionHandler._read_socket": "overridden: what cannot be taken apart costs the connection, not the thread",
    "ConnectionHandler._connect_loop": "overridden: whatever goes wrong while connecting, the hosts are tried again",
    "ConnectionHandler._socket": "read from, with a bound",
    "ConnectionHandler._socket_error_handling": "turns the socket's errors into kazoo's own",
    "ConnectionHandler.handler": "its time-out, its select, and where the last error is kept",
    "ConnectionHandler.client": "whose requests wait for an answer",
    "KazooClient._connection": "replaced by ours",
    "KazooClient._pending": "the request whose answer could not be taken apart must not wait for ever",
    "KazooClient._state": "whether the session is told to be connecting already",
    "KazooClient._session_callback": "tells kazoo that the connection is gone",
    "KazooClient._reset_session": "a session that was out of reach for its whole time is not asked for again",
}

#: The errors after which kazoo makes a new connection.
_FORESEEN = (ForceRetryError, RetryFailedError, InterruptedError)


def use(connection: Connection, client: Any) -> None:
    """Let `client` connect through `connection`. It must not have been started yet."""
    client._connection = connection


def forget_session(client: Any) -> None:
    """Let `client` ask for a new session the next time it connects."""
    client._reset_session()


class Connection(ConnectionHandler):  # type: ignore[misc]  # kazoo has no annotations
    """See the module's text."""

    largest = 0  #: bytes of one answer, at most; set by the session
    granted: float | None = None  #: seconds, the time of the session as the server granted it

    def _invoke(self, timeout: float, request: Any, xid: Any = None) -> Any:
        answer = super()._invoke(min(timeout, self.handler.timeout), request, xid)  # or a silent host keeps us from the others
        if isinstance(request, Connect):
            self.granted = answer[0].time_out / 1000.0
        return answer

    def _read(self, length: int, timeout: float) -> bytes:
        """Exactly `length` bytes, within `timeout` seconds in all. kazoo's own method waits that long for each piece."""
        if not 0 <= length <= self.largest:
            raise self._broken(ConnectionDropped(f"an answer of {length} bytes was announced; {self.largest} are taken"))
        with self._socket_error_handling():
            there: bytes = (self._socket.read(length) or b"") if self._socket.pending() >= length else b""  # it mostly is
            return there if len(there) == length else self._gather(bytearray(there), length, time.monotonic() + timeout)

    def _gather(self, found: bytearray, length: int, ends: float) -> bytes:
        while len(found) < length:
            left = ends - time.monotonic()
            if left <= 0 or not self.handler.select([self._socket], [], [], left)[0]:
                raise self.handler.timeout_exception("an answer did not come to its end in time")
            piece = self._socket.read(length - len(found))
            if piece == b"":
                raise ConnectionDropped("the other side closed the connection")
            found += piece or b""
        return bytes(found)

    def _read_socket(self, read_timeout: float) -> Any:
        """Read one message. A malformed one ends the connection, and no caller goes on waiting for its answer."""
        waiting = self.client._pending[0] if self.client._pending else None
        try:
            return super()._read_socket(read_timeout)
        except (ConnectionDropped, self.handler.timeout_exception):
            raise
        except Exception as error:
            if waiting is not None and waiting[1] is not None:
                waiting[1].set_exception(ConnectionLoss())
            error.__traceback__ = None  # its frames have the whole message, and it is kept until the next failure
            raise self._broken(ConnectionDropped(f"a message without sense ({type(error).__name__})")) from error

    def _connect_loop(self, retry: Any) -> Any:
        """Try all hosts once. After any failure they are tried again."""
        try:
            return super()._connect_loop(retry)
        except _FORESEEN:
            raise
        except Exception as error:
            self._broken(error)
            if self.client._state != KeeperState.CONNECTING:
                self.client._session_callback(KeeperState.CONNECTING)
            raise ForceRetryError("the connection broke") from error

    def _broken(self, error: Exception) -> Exception:
        """`error`, kept for those who wait for a connection."""
        self.handler.last_error = error
        return error
