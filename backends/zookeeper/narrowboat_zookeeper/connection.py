"""kazoo's connection, held to bounds: how much one answer may have, how long it may take, and what becomes of nonsense.

kazoo's own believes what the server sends. It takes memory for any length that it is told, and whatever it cannot take apart
ends its I/O thread for good: every later call of that client then fails, against a healthy server too. Here such a
connection is broken off and a new one is made, in the same session.

It knows nothing of locks; what a request was for is not looked at.
"""

from __future__ import annotations

import time
from typing import Any

from kazoo.exceptions import ConnectionDropped, ConnectionLoss
from kazoo.protocol.connection import ConnectionHandler
from kazoo.protocol.serialization import Connect
from kazoo.protocol.states import KeeperState
from kazoo.retry import ForceRetryError, RetryFailedError

#: What ends a connection as kazoo foresees it.
_FORESEEN = (ForceRetryError, RetryFailedError, InterruptedError)


class Connection(ConnectionHandler):  # type: ignore[misc]  # kazoo has no annotations
    """See the module's text. `largest`: bytes of one answer, at most."""

    largest = 0  #: set by whoever makes it; kazoo makes its own in the same way
    granted: float | None = None  #: seconds, the time of the session as the server granted it

    def _invoke(self, timeout: float, request: Any, xid: Any = None) -> Any:
        answer = super()._invoke(min(timeout, self.handler.timeout), request, xid)  # or a silent host keeps us from the others
        if isinstance(request, Connect):
            self.granted = answer[0].time_out / 1000.0
        return answer

    def _read(self, length: int, timeout: float) -> bytes:
        """Exactly `length` bytes within `timeout` in all: kazoo's own waits for so long for each piece of them."""
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
        """One message. One that cannot be taken apart costs the connection, and leaves nobody waiting for its answer."""
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
        """All hosts once. Whatever goes wrong in it, they are tried again."""
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
