"""One connection to a server, as the client library makes it, with what it leaves out: bounds, care for secrets, an end.

- An answer takes memory as it comes, never as much as it announces, and is refused where it announces more than may come.
- Whatever goes wrong while an answer is read breaks this connection, which is begun anew. The library knows some errors; at
  any other its reading ends without a word, and its callers wait for the timeout.
- Of who sends without end, so much is read at a time. The library reads until nothing more comes.
- No bytes are logged. The library logs all that it sends at DEBUG, and the first of that is the password.
- A socket that does not connect is closed. The library leaves it to the garbage collector.

Used on the I/O thread. It knows no message, no topic and no URL.
"""

from __future__ import annotations

import logging
import os
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import kafka.errors as client
from kafka.net.compat import KafkaNetClient
from kafka.net.connection import KafkaConnection
from kafka.net.inet import KafkaNetSocket, create_connection
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport
from kafka.protocol.frame import KafkaBytes
from kafka.protocol.parser import KafkaProtocol

from narrowboat_kafka.library.loop import Loop
from narrowboat_kafka.library.met import SpeaksTls

#: Bytes of an answer before the connection is made: versions, and what goes to and fro for a password.
_FIRST_MAX = 256 * 1024
#: Bytes of an answer to the administration or a producer, where more may come to a consumer. Each becomes objects, not bytes.
PLAIN_MAX = 8 * 1024 * 1024
#: How an alert of TLS begins, as the length of an answer: what a TLS port says to who speaks without.
_ALERT = 0x150300
#: Bytes that are read from a socket before others on the I/O thread have a turn.
_CHUNK = 256 * 1024
_LENGTH = struct.Struct(">i")


#: Held while the class of an answer is looked up, see `_class_of`.
_classes = threading.Lock()


def _free_classes() -> None:
    global _classes
    _classes = threading.Lock()  # in a forked child nobody is left who could give the old one back


os.register_at_fork(after_in_child=_free_classes)


def _class_of(header: Any) -> Any:
    """The class of the answer to a request. The library makes that of a version at its first use.

    Where two threads do so at once, it may keep the one class and know the other, weakly, as that of all such answers. When
    the collector has come, no answer of that kind can be read in this process any more.

    The library also knows the class weakly where it makes the decoder of a version, and puts the class itself there meanwhile.
    A second thread, with another version, could find the weak one there again, and its decoder, which is kept, would fail for
    ever. So the class itself stands there from the beginning.
    """
    with _classes:
        kind = header.get_response_class()
        schema = getattr(kind, "_struct", None)  # what comes for a password has none
        if schema is not None:
            schema._data_class = kind[None]
        return kind


def _no_password(record: logging.LogRecord) -> bool:
    """The library's debugging output shows what it sends, the password in it."""
    return "SaslAuthenticate" not in record.getMessage()


for _name in ("kafka.net.connection", "kafka.protocol.parser"):
    logging.getLogger(_name).addFilter(_no_password)


class _Sockets(KafkaNetSocket):  # type: ignore[misc]  # the base class has no annotations
    """Sockets that are closed when they do not connect.

    The library finds this class by the scheme of `proxy_url`, its way to say how sockets are made; nothing is proxied.
    """

    SCHEMES = ("narrowboat",)

    def socket(self, *arguments: Any, **named: Any) -> Any:
        """One that is known here until it is connected."""
        self._made = super().socket(*arguments, **named)
        return self._made

    async def connect(self, *arguments: Any, **named: Any) -> Any:
        """Connect it, or close it."""
        try:
            return await super().connect(*arguments, **named)
        except BaseException:  # a cancellation included: the client forgets the socket that it has made
            made = getattr(self, "_made", None)
            if made is not None:
                made.close()
            raise


class _Parser(KafkaProtocol):  # type: ignore[misc]  # the base class has no annotations
    """Requests to bytes and bytes to answers."""

    bytes_to_send: list[Any]
    _receiving: bool

    def __init__(self, connection: Any) -> None:
        most = connection.config["receive_message_max_bytes"]
        super().__init__(client_id=connection.config["client_id"], receive_message_max_bytes=most)
        self._connection = connection
        self._missing = 0  #: bytes of the answer that is coming

    def send_request(self, request: Any, correlation_id: int | None = None) -> int:
        """Queue it; its number."""
        number = self._next_correlation_id() if correlation_id is None else correlation_id
        request.with_header(correlation_id=number, client_id=self._client_id)
        self.bytes_to_send.append(request.encode(framed=True, header=True))
        if request.expect_response():
            self.in_flight_requests.append(request.header)
        return number

    def send_bytes(self) -> Any:
        """What is queued."""
        sent, self.bytes_to_send = self.bytes_to_send, []
        return sent[0] if len(sent) == 1 else b"".join(sent)

    def receive_bytes(self, data: bytes) -> list[tuple[int, Any]]:
        """Take in what came: the answers that are whole now, each with its number."""
        position, end = 0, len(data)
        answers = []
        while position < end:
            if not self._receiving:
                part = data[position : position + 4 - self._header.tell()]
                self._header.write(part)
                position += len(part)
                if self._header.tell() < 4:
                    break
                self._missing = self._announced(_LENGTH.unpack(self._header)[0])
                self._rbuffer = KafkaBytes(0)
                self._receiving = True
            part = data[position : position + self._missing]
            self._rbuffer.write(part)
            position += len(part)
            self._missing -= len(part)
            if self._missing:
                break
            whole = self._rbuffer
            self._reset_buffer()
            whole.seek(0)
            answers.append(self._process_response(whole))
        return answers

    def _announced(self, size: int) -> int:
        most = min(_FIRST_MAX, self._max_frame_size) if self._connection.initializing else self._max_frame_size
        if size >> 8 in range(_ALERT, _ALERT + 5):
            raise SpeaksTls("what answers there speaks TLS")
        if not 0 <= size <= most:
            raise client.InvalidReceiveError(
                f"an answer of {size} bytes is announced, and at most {most} are taken; is it Kafka?"
            )
        return int(size)

    def _process_response(self, data: Any) -> tuple[int, Any]:
        if not self.in_flight_requests:
            raise client.CorrelationIdError("an answer came, and nothing was asked")
        header = self.in_flight_requests.popleft()
        kind = _class_of(header)
        found = kind.parse_header(data).correlation_id
        if found != header.correlation_id:
            raise client.CorrelationIdError(f"an answer to request {found} came where {header.correlation_id} was asked")
        return found, kind.decode(data)


class _Bounded:
    """Reads so much at a time, and ends where it cannot go on.

    The library reads until nothing more comes, which takes all memory where that never is. Where it cannot wait for its
    socket, its task ends and leaves a connection that looks open, on which nothing comes or goes.
    """

    _sock: Any

    async def _read_from_sock(self) -> None:
        await self._or_abort(super()._read_from_sock)  # type: ignore[misc]  # what is mixed in has it

    async def _write_to_sock(self) -> None:
        await self._or_abort(super()._write_to_sock)  # type: ignore[misc]  # what is mixed in has it

    async def _or_abort(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as error:
            self.abort(client.KafkaConnectionError(f"the socket cannot be waited for: {error}"))  # type: ignore[attr-defined]

    def _sock_recv(self) -> tuple[bytes, Exception | None]:
        found, size, failure = [], 0, None
        sock = self._sock
        pending = getattr(sock, "pending", int)  # a wait for the socket does not see what TLS has unpacked
        while size < _CHUNK or pending():
            try:
                data = sock.recv(_CHUNK)
            except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            except Exception as error:
                failure = client.KafkaConnectionError(error)
                break
            if not data:
                failure = client.KafkaConnectionError("the server closed the connection")
                break
            found.append(data)
            size += len(data)
        return (found[0] if len(found) == 1 else b"".join(found)), failure


class _Plain(_Bounded, KafkaTCPTransport):  # type: ignore[misc]  # the base class has no annotations
    """Without TLS."""

    async def handshake(self, timeout_at: float | None = None) -> None:
        """There is none."""


class _Secure(_Bounded, KafkaSSLTransport):  # type: ignore[misc]  # the base class has no annotations
    """With TLS."""

    async def handshake(self, timeout_at: float | None = None) -> None:
        """As the library's, which waits without a bound for a server that accepts a connection and says nothing."""
        while (wait := self._wanted()) is not None:
            try:
                await wait(self._sock, timeout_at)
            except client.KafkaTimeoutError:
                raise TimeoutError("the TLS handshake timed out") from None

    def _wanted(self) -> Any:
        """How to wait for what the next step needs; None once it is done."""
        try:
            self._sock.do_handshake()
        except ssl.SSLWantReadError:
            return self._net.wait_read
        except ssl.SSLWantWriteError:
            return self._net.wait_write
        return None


class _Connection(KafkaConnection):  # type: ignore[misc]  # the base class has no annotations
    """A connection that ends where it cannot go on."""

    parser: Any

    def connection_made(self, transport: Any) -> None:
        """Parse with ours."""
        super().connection_made(transport)
        if self.parser is not None:
            self.parser = _Parser(self)

    def data_received(self, data: bytes) -> None:
        """Take in what came, or end."""
        try:
            super().data_received(data)
        except client.KafkaProtocolError as error:
            self.close(error)
        except Exception as error:  # the library may raise anything about bytes of a foreign server
            self.close(client.KafkaConnectionError(f"an answer cannot be read ({type(error).__name__})"))


class NetClient(KafkaNetClient):  # type: ignore[misc]  # the base class has no annotations
    """The library's client over such connections.

    It makes no topics by asking for them: the library's own setting for that does not reach its requests.
    """

    def __init__(self, net: Any = None, **config: Any) -> None:
        super().__init__(net=net or Loop(client_id=config["client_id"]), **config)
        self.cluster.config["allow_auto_create_topics"] = False
        self.last: Any = None  #: the connection that was begun last
        connect = self._manager.get_connection

        def kept(*arguments: Any, **named: Any) -> Any:
            self.last = connect(*arguments, **named)
            if type(self.last) is KafkaConnection:
                self.last.__class__ = _Connection
            return self.last

        self._manager.get_connection = kept
        self._manager._build_transport = self._transport

    async def _transport(self, node: Any, timeout_at: float | None = None) -> Any:
        """A transport to `node`, or an error and no socket that stays open."""
        manager = self._manager
        config = manager.config
        sock = await create_connection(
            manager._net,
            node.host,
            node.port,
            config["socket_options"],
            proxy_url=config["proxy_url"],
            timeout_at=timeout_at,
        )
        transport = None
        try:
            if manager.ssl_enabled:
                settings = {name: value for name, value in config.items() if name.startswith("ssl_")}
                transport = _Secure(manager._net, sock, host=node.host, **settings)
            else:
                transport = _Plain(manager._net, sock, host=node.host)
            await transport.handshake(timeout_at)
        except BaseException as error:  # a cancellation included
            if transport is not None:
                transport.abort(error)
            else:
                sock.close()
            if not isinstance(error, Exception):
                raise
            raise client.KafkaConnectionError(f"Handshake failed: {error}") from error
        return transport

    @property
    def failure(self) -> BaseException | None:
        """Why the connection that was begun last was not made; None where it was, or is still being made."""
        last = self.last
        return last.init_future.exception if last is not None and last.init_future.failed() else None

    def turned_away(self) -> bool:
        """Whether the server told its version and then hung up: what it does where it does not know user or password."""
        last = self.last
        return last is not None and last.broker_version_data is not None and last.init_future.failed()


class SharedNetClient(NetClient):
    """A client on a shared I/O thread: closing it leaves the thread alone."""

    def close(self, node_id: object = None) -> None:
        """Close its connections."""
        if node_id is None and not self._net._closed:
            self._net.run(self._close)
        else:
            self._manager.close(node_id=node_id)

    async def _close(self) -> None:
        self._manager.close()
