"""One socket to a server, as the client library wants it: made, agreed upon with TLS, written, read in whole answers, closed.

What the library's own leave out is here:

- An answer takes memory as it comes, never as much as it announces, and is refused where it announces more than may come.
- Whatever goes wrong while an answer is read breaks this connection, which is begun anew. The library knows some errors; at
  any other its reading ends without a word, and its callers wait for the timeout.
- Of who sends without end, so much is read at a time. The library reads until nothing more comes.
- The handshake of TLS has an end, and a socket that does not connect is closed.

On the loop's thread. It knows no message and no topic; of what is asked it knows the kind, of an answer the length.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
import struct
import time
from collections import deque
from typing import Any

import kafka.errors as client

from narrowboat_kafka.library.answers import in_turn
from narrowboat_kafka.library.met import SpeaksTls

#: Bytes of an answer before the connection is made: versions, and what goes to and fro for a password.
_FIRST_MAX = 256 * 1024
#: How an alert of TLS begins, as the length of an answer: what a TLS port says to who speaks without.
_ALERT = 0x150300
#: Bytes that are read from a socket before others on the loop have a turn.
_CHUNK = 256 * 1024
_LENGTH = struct.Struct(">i")
#: Bytes behind the length of a request that say its kind: a number and a version.
_KIND = 4
_NOT_YET = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Wire:
    """See the module's text. `protocol`, the connection of the library, says what it may read, and is told what came."""

    def __init__(self, loop: Any, sock: Any, host: str) -> None:
        self.host = host
        self.last_activity = time.monotonic()
        self._loop = loop
        self._sock = sock
        self._place = sock.getpeername()[:2]
        self._protocol: Any = None
        self._closing = False
        self._full = False  #: the socket takes no more just now
        self._written: deque[Any] = deque()
        self._asked: deque[bytes] = deque()  #: the kinds of what was sent and not answered yet
        self._begun = bytearray()  #: of an answer that is not whole yet
        self._size = 0  #: of that one and its length; 0 while its length is not here
        self._answers = 0
        self._receive = self._secure if hasattr(sock, "pending") else self._plain

    # -- what the library asks of it ------------------------------------------------------------------------------

    def get_protocol(self) -> Any:
        """Whom it tells what came."""
        return self._protocol

    def set_protocol(self, protocol: Any) -> None:
        """Tell that one what comes."""
        self._protocol = protocol

    def resume_reading(self) -> None:
        """Tell what comes."""
        self._watch()

    def host_port(self) -> str:
        """Where it leads to."""
        return "{}:{}".format(*self._place)

    def get_peer(self) -> Any:
        """The address that it leads to."""
        return self._place

    getPeer = get_peer  # as 3.0 calls it

    def write(self, data: Any) -> int:
        """Send it, now or once there is room for it."""
        if self._closing or self._sock is None:
            raise RuntimeError("the connection was closed")
        position = 0
        while position < len(data):
            self._asked.append(bytes(data[position + _LENGTH.size : position + _LENGTH.size + _KIND]))
            position += _LENGTH.size + _LENGTH.unpack_from(data, position)[0]
        self._written.append(memoryview(data))
        if len(self._written) == 1:
            self._send(None)
        return len(data)

    def close(self) -> None:
        """End it when all is written."""
        self._closing = True
        if not self._written:
            self._end(None)

    def abort(self, error: Any = None) -> None:
        """End it now."""
        self._end(error)

    # -- what the loop tells --------------------------------------------------------------------------------------

    def _watch(self) -> None:
        if self._sock is None:
            return
        try:
            self._loop.watch(self._sock, self._read, self._send if self._full else None)
        except Exception as error:
            # Whoever asks for this is in the middle of something, and would go on with a connection that has ended.
            self._loop.call_soon(self._end, client.KafkaConnectionError(f"the socket cannot be waited for: {error}"))

    def _send(self, lost: Exception | None) -> None:
        if self._sock is None or lost is not None:
            self._end(lost)
            return
        written = self._written
        try:
            while written:
                part = written[0]
                sent = self._sock.send(part)
                self.last_activity = time.monotonic()
                if sent == len(part):
                    written.popleft()
                else:
                    written[0] = part[sent:]
        except _NOT_YET:
            pass
        except Exception as error:
            written.clear()
            self._loop.call_soon(self._end, client.KafkaConnectionError(error))
        if bool(written) is not self._full:
            self._full = bool(written)
            self._watch()
        if self._closing and not written:
            self._end(None)

    def _read(self, lost: Exception | None) -> None:
        if self._sock is None or lost is not None:
            self._end(lost)
            return
        data, failure = self._receive()
        if data:
            self.last_activity = time.monotonic()
            try:
                self._take(data)
            except _Refused as error:
                failure = error.why
            except client.CorrelationIdError as error:
                failure = error
            except Exception as error:  # the library may raise anything about bytes of a foreign server
                met = error.__context__ if isinstance(error, client.KafkaProtocolError) and error.__context__ else error
                failure = client.KafkaConnectionError(f"an answer cannot be read ({type(met).__name__})")
        if failure is not None:
            self._end(failure)

    def _plain(self) -> tuple[Any, Exception | None]:
        try:
            data = self._sock.recv(_CHUNK)
        except _NOT_YET:
            return b"", None
        except Exception as error:
            return b"", client.KafkaConnectionError(error)
        return data, None if data else client.KafkaConnectionError("the server closed the connection")

    def _secure(self) -> tuple[Any, Exception | None]:
        found: list[bytes] = []
        size = 0
        failure = None
        # A wait for the socket does not see what TLS has unpacked.
        while failure is None and (size < _CHUNK or self._sock.pending()):
            data, failure = self._plain()
            if not data:
                break
            found.append(data)
            size += len(data)
        return b"".join(found), failure

    # -- answers --------------------------------------------------------------------------------------------------

    def _take(self, data: Any) -> None:
        """Give on each answer that is whole now."""
        if self._begun:
            self._begun += data
            data = self._begun
        position, end = 0, len(data)
        while self._sock is not None:
            if not self._size:
                if end - position < _LENGTH.size:
                    break
                self._size = _LENGTH.size + self._announced(_LENGTH.unpack_from(data, position)[0])
            if end - position < self._size:
                break
            whole = data if self._size == end else bytes(memoryview(data)[position : position + self._size])
            position += self._size
            self._size = 0
            self._answer(whole)
        if position or data is not self._begun:
            self._begun = bytearray(memoryview(data)[position:])

    def _announced(self, size: int) -> int:
        most: int = self._protocol.config["receive_message_max_bytes"]
        if self._protocol.initializing:
            most = min(_FIRST_MAX, most)
        if size >> 8 in range(_ALERT, _ALERT + 5):
            raise _Refused(SpeaksTls("what answers there speaks TLS"))
        if not 0 <= size <= most:
            raise _Refused(
                client.InvalidReceiveError(
                    f"an answer of {size} bytes is announced, and at most {most} are taken; is it Kafka?"
                )
            )
        return size

    def _answer(self, whole: Any) -> None:
        kind = self._asked.popleft() if self._asked else b""
        self._answers += 1
        # Before the connection is made it may be a part of a secret, for an old server.
        in_turn(b"" if self._protocol.initializing else kind, self._protocol.data_received, whole)

    # -- its end --------------------------------------------------------------------------------------------------

    def _end(self, error: Exception | None) -> None:
        sock, protocol = self._sock, self._protocol
        if sock is None:
            return
        self._loop.watch(sock, None, None)
        self._sock = self._protocol = None
        self._written.clear()
        self._begun = bytearray()
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()
        if protocol is not None:
            # Where a server turned the try before away, one that only ran out of time says less.
            late = self._loop.turned_away and isinstance(error, client.KafkaTimeoutError)
            if error is not None and protocol.initializing and not late:
                self._loop.failure, self._loop.turned_away = error, self._answers > 0
            protocol.connection_lost(error)


class _Refused(Exception):
    """What came is not what is taken. `why`: what its callers are told."""

    def __init__(self, why: Exception) -> None:
        super().__init__(why)
        self.why = why


# -- how one is made ----------------------------------------------------------------------------------------------


async def connected(loop: Any, host: str, port: int, *, context: Any, options: Any, until: float | None) -> Wire:
    """One to that server, or an error and no socket that stays open. `context`: of TLS; None without. `until`: monotonic."""
    if not loop.turned_away:
        loop.failure = None
    sock = None
    try:
        sock = await _connected(loop, host, port, options, until)
        if context is not None:
            try:
                sock = context.wrap_socket(sock, server_hostname=host.rstrip("."), do_handshake_on_connect=False)
                await _shake_hands(loop, sock, until)
            except Exception as error:
                raise client.KafkaConnectionError(f"Handshake failed: {error}") from error
        return Wire(loop, sock, host)
    except BaseException as error:  # a cancellation included
        if isinstance(error, Exception):
            loop.failure, loop.turned_away = error, False
        if sock is not None:
            sock.close()
        raise


async def _connected(loop: Any, host: str, port: int, options: Any, until: float | None) -> Any:
    failure: Exception = client.KafkaConnectionError("DNS Resolution failure")
    try:
        places = await loop.getaddrinfo(host, port)
    except OSError:
        places = []
    for family, kind, number, _, place in places:
        sock = None
        try:
            sock = socket.socket(family, kind, number)
            sock.setblocking(False)
            for option in options:
                sock.setsockopt(*option)
            await _connect(loop, sock, place, until)
            return sock
        except BaseException as error:  # a cancellation included: nobody else knows the socket
            if sock is not None:
                sock.close()
            if isinstance(error, client.KafkaTimeoutError):
                raise client.KafkaConnectionError("Connection timed out") from error
            if not isinstance(error, OSError):
                raise
            failure = client.KafkaConnectionError(f"unable to connect: {error}")
    raise failure


async def _connect(loop: Any, sock: Any, place: Any, until: float | None) -> None:
    while (number := sock.connect_ex(place)) not in (0, errno.EISCONN):
        if number not in (errno.EINPROGRESS, errno.EALREADY, errno.EWOULDBLOCK):
            raise OSError(number, os.strerror(number))
        if until is not None and time.monotonic() >= until:
            raise client.KafkaTimeoutError("Connection timed out")
        await loop.ready_for(sock, until, reading=False)


async def _shake_hands(loop: Any, sock: Any, until: float | None) -> None:
    """As the library does, which waits without a bound for a server that accepts a connection and says nothing."""
    while True:
        try:
            sock.do_handshake()
            return
        except ssl.SSLWantReadError:
            reading = True
        except ssl.SSLWantWriteError:
            reading = False
        try:
            await loop.ready_for(sock, until, reading=reading)
        except client.KafkaTimeoutError:
            raise TimeoutError("the TLS handshake timed out") from None
