"""Connections to Redis: how one is made, and one exchange over it.

redis-py makes the connection (sockets, TLS, AUTH, SELECT). Over its socket a `Line` sends a pipeline that is packed
already and reads the replies in one go, which costs half of what the general client does for each command. Nothing is
tried again here, and every step has a time limit: who repeats is the core, because only it knows what is safe.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import struct
import sys
import time
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import Connection
from redis.retry import Retry

from narrowboat.dsn import hidden
from narrowboat.errors import ConfigurationError, Unavailable
from narrowboat_redis.errors import ODD, OLDEST, too_old, version_of
from narrowboat_redis.resp import ErrorReply, NotRedis, ProtocolError, Reader, pack, shown
from narrowboat_redis.site import Address, Site, Topology

#: Seconds without use after which a connection is looked at before it is used again: a server that was restarted meanwhile
#: has closed it, and the first call after that would fail for nothing.
_IDLE = 1.0
_CHUNK = 65536
#: Whether the kernel itself ends a call that takes too long: Python's own time limits cost a system call before each other.
_KERNEL_TIMES = sys.platform.startswith("linux")
_ALL = 1 << 30


class Line:
    """One connection. For one thread at a time; who shares it brings a mutex."""

    def __init__(self, connection: Connection, address: Address, timeout: float, most: int) -> None:
        self.address = address
        self._connection = connection
        self._socket: Any = connection._sock  # redis-py has no public name for it; called so from 3.0 to 8.1 at least
        self._reader = Reader(most)
        self._timeout = timeout
        self._kernel_times = _KERNEL_TIMES and not hasattr(self._socket, "pending")  # what TLS does in between takes Python's
        self.limit(timeout)
        self._used = time.monotonic()
        self.busy = False  #: something was sent whose reply was not read: nothing more can be read from it

    def usable(self) -> bool:
        """Whether it may be used again; False where an exchange was broken off or the server has closed it."""
        if self.busy:
            return False
        if time.monotonic() - self._used < _IDLE:
            return True
        return not self.readable(0.0)

    def readable(self, seconds: float) -> bool:
        """Whether bytes, or the end of the connection, arrive within `seconds`."""
        if self.pending():
            return True
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            return bool(selector.select(seconds))

    def send(self, data: bytes, ends: float | None = None) -> None:
        """Send commands, until `ends`. From here on the line is busy until all replies are read."""
        self.busy = True
        try:
            if len(data) <= _CHUNK or ends is None:
                self._socket.sendall(data)
                return
            rest = memoryview(data)  # whoever takes it byte by byte must not keep us
            while rest:
                rest = rest[self._socket.send(rest) :]
                if rest and time.monotonic() > ends:
                    raise _timed_out()
        except BlockingIOError:
            raise _timed_out() from None

    def receive(self, number: int, ends: float) -> list[Any]:
        """As many replies, until `ends` by `time.monotonic`. Raises TimeoutError, OSError or ProtocolError."""
        replies: list[Any] = []
        while not self._reader.take(replies, number):
            self._reader.feed(self._more())
            left = ends - time.monotonic()
            if left <= 0 and not self._reader.take(replies, number):
                raise _timed_out()  # the limit of each step is no limit to whoever sends a little all the time
            if len(replies) < number and left < self._step / 2:
                self.limit(left)
        if self._step != self._timeout:
            self.limit(self._timeout)
        self.busy = False
        self._used = time.monotonic()
        return replies

    def once(self, data: bytes, ends: float) -> Any:
        """The reply to one command: the same as `send` and `receive`, for the short reply that arrives in one piece."""
        self.busy = True
        try:
            self._socket.sendall(data)
            answer = self._socket.recv(_CHUNK)
        except BlockingIOError:
            raise _timed_out() from None
        if answer.endswith(b"\r\n") and self._step == self._timeout:
            kind = answer[0]
            begin = answer.index(b"\n") + 1
            if kind == 36 and answer[1 : begin - 2] == b"%d" % (len(answer) - begin - 2):  # $: all of it and no more
                value: Any = answer[begin:-2]
            elif kind == 58 and answer.count(b"\n") == 1:  # :
                value = int(answer[1:-2])
            else:
                self._reader.feed(answer)
                return self.receive(1, ends)[0]
            self.busy = False
            self._used = time.monotonic()
            return value
        if not answer:
            raise ConnectionResetError(_CLOSED)
        self._reader.feed(answer)
        return self.receive(1, ends)[0]

    def _more(self) -> bytes:
        try:
            data: bytes = self._socket.recv(_CHUNK)
        except BlockingIOError:
            raise _timed_out() from None
        if not data:
            raise ConnectionResetError(_CLOSED)
        return data

    def fileno(self) -> int:
        """For poll."""
        number: int = self._socket.fileno()
        return number

    def pending(self) -> bool:
        """Whether TLS holds bytes that poll does not see."""
        pending = getattr(self._socket, "pending", None)
        return pending is not None and bool(pending())

    def read(self) -> list[Any]:
        """Whatever has come, at least some bytes of it: for a subscription, where replies come unasked."""
        self._reader.feed(self._more())
        replies: list[Any] = []
        self._reader.take(replies, _ALL)
        return replies

    def ask(self, *commands: bytes) -> list[Any]:
        """Send packed commands and return their replies."""
        self.send(b"".join(commands))
        return self.receive(len(commands), time.monotonic() + self._timeout)

    def limit(self, seconds: float) -> None:
        """Let each step of the next exchange take that long at most."""
        self._step = max(seconds, 0.001)
        if self._kernel_times:
            span = struct.pack("ll", int(self._step), int(self._step % 1 * 1e6))
            self._socket.settimeout(None)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, span)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, span)
        else:
            self._socket.settimeout(self._step)

    def allow(self, seconds: float) -> None:
        """Let each exchange after the next take that long."""
        self._timeout = seconds

    def close(self, *, hard: bool = False) -> None:
        """End it. `hard`: throw away what is still on its way out, so that it cannot arrive later."""
        if hard:
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._socket.close()  # before redis-py shuts it down, which would send what is left in good order
            except OSError:
                pass
        self._reader.drop()
        self._connection.disconnect()  # type: ignore[no-untyped-call]  # so in redis-py


#: What is wrong with an answer; not ValueErrors of the system: a name that cannot be looked up.
_ODD = tuple(kind for kind in ODD if kind is not ValueError)
_CLOSED = "the connection was closed by the server"


def _timed_out() -> TimeoutError:
    return TimeoutError("timed out")


def open_line(site: Site, address: Address, timeout: float, later: float | None = None) -> Line:
    """A connection to that server, logged in, its database selected, its version known to be new enough.

    `timeout`: seconds that this and the first exchange may take; `later`: each exchange after that. Raises what redis-py, the
    socket or the server said, for `errors.translate`, or an error of ours.
    """
    ends = time.monotonic() + timeout
    try:
        line = _open(site, address, timeout)
        try:
            _check(site, line, ends)
            if later is not None:
                line.allow(later)
                line.limit(ends - time.monotonic())
        except BaseException:
            line.close()
            raise
        return line
    except (ProtocolError, *_ODD) as error:
        problem = str(error)
    raise NotRedis(problem)  # out here no frame of a traceback keeps what was read


def _open(site: Site, address: Address, timeout: float, *, sentinel: bool = False) -> Line:
    options = site.options
    username, password = site.username, site.password
    if sentinel:
        username, password = options.sentinel_username, options.sentinel_password
    settings: dict[str, Any] = {
        "host": address.host,
        "port": address.port,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        # Two more round trips for each connection, only to tell the server who we are:
        **({"driver_info": None} if hasattr(redis, "DriverInfo") else {"lib_name": None, "lib_version": None}),
    }
    if site.tls:
        kind: Any = _SecureConnection
        settings["context"] = options.context(backend=site.scheme)
    else:
        kind = _Connection
    ends = time.monotonic() + timeout
    connection = kind(**settings)
    try:
        connection.connect()
        line = Line(connection, address, timeout, options.max_reply)
        # What the server says to these is read here: redis-py would read on as long as it sends, whatever it is.
        if password is not None:
            user = [] if username is None else [username.encode()]
            _expect(line, hidden(pack(b"AUTH", *user, password.reveal().encode())), ends)
        if site.database and not sentinel:
            _expect(line, pack(b"SELECT", b"%d" % site.database), ends)
    except BaseException:  # an interrupt included: nobody else knows of this connection
        connection.disconnect()
        raise
    return line


def _expect(line: Line, command: bytes, ends: float) -> None:
    """Send one command, whose error is raised."""
    line.send(command)
    (reply,) = line.receive(1, ends)
    if isinstance(reply, ErrorReply):
        raise reply


class _Connection(Connection):
    """redis-py's own, which gives all addresses of a host one time limit, and closes what an interrupt leaves."""

    def _connect(self) -> socket.socket:
        ends = time.monotonic() + float(self.socket_connect_timeout or 0)
        failed: OSError = OSError(f"{self.host} has no address")
        for family, kind, protocol, _, where in socket.getaddrinfo(self.host, self.port, 0, socket.SOCK_STREAM):
            try:
                made = socket.socket(family, kind, protocol)
            except OSError as error:  # a family that this machine has not got; or it has no more descriptors
                failed = error
                continue
            try:
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                made.settimeout(max(0.001, ends - time.monotonic()))
                made.connect(where)
                made.settimeout(self.socket_timeout)
                return made
            except BaseException as error:
                made.close()
                if not isinstance(error, OSError):
                    raise
                failed = error
        raise failed


class _SecureConnection(_Connection):
    """redis-py's own reads the certificates of all authorities for each connection: 22 of the 25 ms that one takes."""

    def __init__(self, *, context: ssl.SSLContext, **settings: Any) -> None:
        super().__init__(**settings)  # type: ignore[no-untyped-call]  # so in redis-py
        self._context = context

    def _connect(self) -> ssl.SSLSocket:
        plain = super()._connect()
        try:
            return self._context.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise


def _check(site: Site, line: Line, ends: float) -> None:
    """That it is a server that we can work with, and the one that the URL means."""
    line.send(pack(b"HELLO", b"2"))
    (reply,) = line.receive(1, ends)
    if isinstance(reply, ErrorReply):
        if "unknown command" not in reply.text.lower():
            raise reply
        line.send(pack(b"INFO", b"server"))  # older than 6.0
        (info,) = line.receive(1, ends)
        found = [row[14:] for row in info.decode().splitlines() if row.startswith("redis_version:")] if info else []
        raise too_old(site, found[0] if found else "5 or older")
    if not isinstance(reply, list):
        raise ProtocolError(f"HELLO was answered with {shown(reply)}")
    facts = dict(zip(reply[::2], reply[1::2], strict=False))
    version = facts.get(b"version", b"").decode()
    if version_of(version) < OLDEST:
        raise too_old(site, version)
    mode = facts.get(b"mode", b"").decode()
    wanted = "cluster" if site.topology is Topology.CLUSTER else "standalone"
    if mode != wanted:
        driver = "" if mode == "standalone" else f"+{mode}"
        raise ConfigurationError(
            f"{site}: {line.address} is a server in {mode} mode. Write {site.scheme}{driver}://... for that.",
            backend=site.scheme,
        )
    if site.topology is Topology.SENTINEL and facts.get(b"role") != b"master":
        raise Unavailable(
            f"{site}: {line.address}, which the sentinels name, is no primary (any more). A failover is under way; "
            "the call may be repeated.",
            backend=site.scheme,
        )


def find_primary(site: Site, timeout: float) -> Address:
    """The primary that the sentinels name: the first answer of any of them."""
    ends = time.monotonic() + timeout
    failed: BaseException | None = None
    for number, address in enumerate(site.hosts):
        share = max(0.05, (ends - time.monotonic()) / (len(site.hosts) - number))
        try:
            line = _open(site, address, share, sentinel=True)
            try:
                (reply,) = line.ask(pack(b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", site.service.encode()))
            finally:
                line.close()
        except ProtocolError as error:
            failed = failed or NotRedis(str(error))
            continue
        except (OSError, redis.RedisError) as error:
            failed = failed or error
            continue
        if isinstance(reply, ErrorReply):
            if "unknown command" in reply.text.lower():
                raise ConfigurationError(
                    f"{site}: {address} is no sentinel. Write {site.scheme}://{address}/0 for a single server.",
                    backend=site.scheme,
                )
            raise reply
        if reply:
            return Address(reply[0].decode(), int(reply[1]))
        failed = None
        break
    if failed is not None:
        raise failed
    raise Unavailable(
        f"{site}: the sentinels know no primary of that name. Check the name in the URL's path; during a failover the call "
        "may be repeated.",
        backend=site.scheme,
    )
