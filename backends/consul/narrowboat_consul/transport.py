"""How calls reach the agent: pooled connections, a time limit for each call, the token in a header.

Consul's interface is HTTP and JSON, and four of its paths are used here. No client library stands in between: none has a time
limit for a whole call or shows what a transaction refused, and py-consul's calls take seventeen times the CPU.
"""

from __future__ import annotations

import binascii
import contextlib
import json
import socket
import ssl
import string
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from narrowboat_consul import http
from narrowboat_consul.errors import translate
from narrowboat_consul.options import Agent

#: The query of a path, unquoted.
Params = Sequence[tuple[str, str]]

#: Idle connections that are kept for the next call.
KEPT = 4
#: The shortest time limit of a call, in seconds, also after the agent was silent.
_GRACE = 0.5
_PIECE = 256 * 1024
#: Bytes of the text of an error. A longer text is cut, because exceptions end up in logs.
_ERROR = 2048
#: A part of the token with so many characters is in no error. Fewer would hide words of the page as well.
_PART = 8
#: In lower case a text is as long as before: `str.lower` makes two letters of some.
#: The two alphabets of base64 are one.
_FOLDED = str.maketrans(string.ascii_uppercase + "-_", string.ascii_lowercase + "+/")


class Response(NamedTuple):
    """A reply: its code and its text."""

    code: int
    body: str


class Silence:
    """Until when an agent counts as silent, after a call that it did not answer in time."""

    until = 0.0


class Limit(threading.local):
    """The deadline of this thread's present driver call. All exchanges of one call share its time.

    After a call without an answer, the calls within the next operation timeout have a fifth of it. An attempt, its repetition
    and its withdrawal would otherwise wait for the same silence several times.
    """

    def __init__(self, timeout: float, silence: Silence) -> None:
        self.timeout = timeout
        self.silence = silence  #: of all threads
        self.given = timeout  #: seconds that the present call has
        self.ends: float | None = None

    @contextlib.contextmanager
    def call(self, share: float = 1.0) -> Iterator[None]:
        """Begin a driver call, with this share of the operation timeout. A call within another one shares its time."""
        if self.ends is not None:
            yield
            return
        now = time.monotonic()
        self.given = share * self.timeout if now >= self.silence.until else min(self.timeout, max(_GRACE, self.timeout / 5))
        self.ends = now + self.given
        try:
            yield
        finally:
            self.ends = None

    def answered(self) -> None:
        """Note an answer: the agent is not silent."""
        self.silence.until = 0.0

    def unanswered(self) -> None:
        """Note a timeout. A call with little time proves nothing: a slow agent gets its full time again after a while."""
        if self.given == self.timeout:
            self.silence.until = time.monotonic() + self.timeout


class Transport:
    """Calls to one agent, from any number of threads."""

    def __init__(self, agent: Agent, limit: Limit) -> None:
        self.agent = agent
        self.timeout = limit.timeout
        self._limit = limit
        self.tls = agent.options.context(backend=agent.scheme) if agent.tls else None
        address = agent.hosts[0]
        asked = address._replace(host=address.host.encode("idna").decode())  # headers are ASCII
        self._headers = {"Host": str(asked), "Accept": "application/json"}
        if agent.token is not None:
            self._headers["X-Consul-Token"] = agent.token.reveal()
        if agent.options.namespace is not None:
            self._headers["X-Consul-Namespace"] = agent.options.namespace
        self._mutex = threading.Lock()
        self._idle: list[socket.socket] = []
        self._closed = False
        self._peer: tuple[int, Any] | None = None

    def call(self, method: str, path: str, params: Params = (), body: bytes = b"") -> Response:
        """One exchange within the time limit; `Unavailable` otherwise, and the connection is closed."""
        reply = self._exchange(self.request(method, path, params, body))
        text = reply.body if reply.code in (200, 409) else reply.body[:_ERROR]
        return Response(reply.code, self._without_token(reply.code, text.decode("utf-8", "replace")))

    def _without_token(self, code: int, text: str) -> str:
        """`text`, fit for an error: a proxy, or another server at that address, may repeat the request, token included."""
        token = self._headers.get("X-Consul-Token")
        if code == 200 or not token:
            return text
        text = text.replace(token, "***")
        return text if code == 409 else _masked(text, token)  # the other failures are shown, and not read

    def incoming(self) -> http.Incoming:
        """What takes a reply in."""
        return http.Incoming(self.agent.options.max_reply, quotes=self.agent.token is None)

    def request(self, method: str, path: str, params: Params = (), body: bytes = b"") -> bytes:
        """The bytes of a request."""
        dc = self.agent.options.dc
        query = urlencode([*params, *([("dc", dc)] if dc is not None else [])])
        target = quote(path, safe="/:,") + (f"?{query}" if query else "")
        return http.request(method, target, self._headers, body)

    def transaction(self, operations: list[dict[str, Any]], *, reading: bool = False) -> Response:
        """Consul's `/v1/txn`: 200 when all was done, 409 when nothing was, with the refused members."""
        body = json.dumps(operations, separators=(",", ":")).encode()
        return self.call("PUT", "/v1/txn", [("consistent", "")] if reading else (), body)

    def close(self) -> None:
        """Close the idle connections. A connection in use is closed when its call ends."""
        with self._mutex:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def connect(self, ends: float) -> socket.socket:
        """Open a connection, until `ends` by the monotonic clock."""
        connection = socket.create_connection(self.agent.hosts[0], timeout=_left(ends))
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._peer = (connection.family, connection.getpeername())
            if self.tls is not None:
                connection.settimeout(_left(ends))
                connection = self.tls.wrap_socket(connection, server_hostname=self.agent.hosts[0].host)
            return connection
        except BaseException:  # an interrupt included: nobody else knows of this socket
            connection.close()
            raise

    def peer(self) -> tuple[int, Any]:
        """The family and address of the last connection, for a caller that must not wait for a name to be resolved."""
        if self._peer is None:
            raise ConnectionError("there was no connection yet")
        return self._peer

    def _exchange(self, data: bytes) -> http.Reply:
        ends = self._limit.ends or time.monotonic() + self.timeout
        connection: socket.socket | None = None
        reply: http.Reply | None = None
        try:
            connection = self._kept() or self.connect(ends)
            connection.settimeout(_left(ends))
            connection.sendall(data)
            reply = _receive(connection, ends, self.incoming())
            self._limit.answered()
            return reply
        except (OSError, http.Malformed) as error:
            if isinstance(error, TimeoutError):
                self._limit.unanswered()
            raise translate(error, self.agent, self._limit.given) from error
        finally:
            if connection is not None:
                self._keep(connection, reply)

    def _kept(self) -> socket.socket | None:
        while True:
            with self._mutex:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if _quiet(connection):
                return connection
            connection.close()  # the agent has closed it meanwhile

    def _keep(self, connection: socket.socket, reply: http.Reply | None) -> None:
        with self._mutex:
            if reply is not None and reply.keep and not self._closed and len(self._idle) < KEPT:
                self._idle.append(connection)
                return
        connection.close()


def _forms(secret: str) -> Iterator[str]:
    """`secret`, and what base64 makes of it behind 0, 1 or 2 other bytes, which have a share in the first characters."""
    yield secret
    for before, shared in enumerate((0, 2, 3)):
        data = bytes(before) + secret.encode()
        yield binascii.b2a_base64(data, newline=False).decode()[shared : len(data) * 8 // 6]


def _masked(text: str, secret: str) -> str:
    """`text` without any part of `secret` that has `_PART` characters, in either case, or in base64."""
    low, within, shown, at = text.translate(_FOLDED), "\0".join(_forms(secret)).translate(_FOLDED), [], 0
    while at < len(text):
        end = at + _PART
        if low[at:end] not in within or end > len(text):
            shown.append(text[at])
            at += 1
            continue
        while end < len(text) and low[at : end + 1] in within:
            end += 1
        shown.append("***")
        at = end
    return "".join(shown)


def _receive(connection: socket.socket, ends: float, incoming: http.Incoming) -> http.Reply:
    while True:
        connection.settimeout(_left(ends))
        reply = incoming.take(connection.recv(_PIECE))
        if reply is not None:
            return reply


def _quiet(connection: socket.socket) -> bool:
    """Whether an idle connection can be used: no byte has arrived on it, and it has not been closed."""
    try:
        connection.settimeout(0)
        connection.recv(1)  # its end, or something that nobody asked for
        return False
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except OSError:
        return False


def _left(ends: float) -> float:
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left
