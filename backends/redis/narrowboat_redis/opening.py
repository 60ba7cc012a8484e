"""Opens a connection to a server of the URL: logs in, selects the database, and checks that the version is new enough.

It also asks the sentinels which server is the primary. It raises the errors of the socket and of the server as they are, for
`errors.translate`, or a `NarrowboatError`. All steps share one deadline.
"""

from __future__ import annotations

import socket
import time

from narrowboat.driver.endpoint import HostPort
from narrowboat.driver.versions import numbers
from narrowboat.dsn import Secret, hidden
from narrowboat.errors import ConfigurationError, Unavailable
from narrowboat_redis.connection import Connection
from narrowboat_redis.endpoint import Deployment, RedisEndpoint
from narrowboat_redis.errors import ODD, OLDEST, of_sentinel, too_old
from narrowboat_redis.resp import ErrorReply, NotRedis, ProtocolError, pack, shown

#: What an unexpected answer raises. A `ValueError` of the system (a name that cannot be looked up) is not among them.
_ODD = tuple(kind for kind in ODD if kind is not ValueError)


def open_connection(endpoint: RedisEndpoint, address: HostPort, timeout: float, later: float | None = None) -> Connection:
    """A connection to that server.

    `timeout`: seconds that this and the first exchange may take; `later`: each exchange after that.
    """
    ends = time.monotonic() + timeout
    try:
        connection = _logged_in(endpoint, address, ends, endpoint.user, endpoint.secret)
        try:
            if endpoint.number:
                _expect(connection, pack(b"SELECT", b"%d" % endpoint.number), ends)
            _check(endpoint, connection, ends)
            if later is not None:
                connection.allow(later)
                connection.limit(ends - time.monotonic())
        except BaseException:
            connection.close()
            raise
        return connection
    except (ProtocolError, *_ODD) as error:
        problem = str(error)
    raise NotRedis(problem)  # out here no frame of a traceback keeps what was read


def find_primary(endpoint: RedisEndpoint, timeout: float) -> HostPort:
    """The primary, from the first sentinel that names one."""
    ends = time.monotonic() + timeout
    options = endpoint.options
    failed: BaseException | None = None
    for number, address in enumerate(endpoint.hosts):
        share = max(0.05, (ends - time.monotonic()) / (len(endpoint.hosts) - number))
        try:
            connection = _logged_in(
                endpoint, address, time.monotonic() + share, options.sentinel_username, options.sentinel_password
            )
            try:
                (reply,) = connection.ask(pack(b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", endpoint.service.encode()))
            finally:
                connection.close()
        except ErrorReply as error:
            raise of_sentinel(error, endpoint, address) from error
        except ProtocolError as error:
            failed = failed or NotRedis(str(error))
            continue
        except OSError as error:
            failed = failed or error
            continue
        if isinstance(reply, ErrorReply):
            raise of_sentinel(reply, endpoint, address) from reply
        if reply:
            return HostPort(reply[0].decode(), int(reply[1]))
        failed = None
        break
    if failed is not None:
        raise failed
    raise Unavailable(
        f"{endpoint}: the sentinels know no primary of that name. Check the name in the URL's path; during a failover the call "
        "may be repeated.",
        backend=endpoint.scheme,
    )


def _logged_in(endpoint: RedisEndpoint, address: HostPort, ends: float, user: str | None, secret: Secret | None) -> Connection:
    timeout = max(0.001, ends - time.monotonic())
    connection = Connection(_connected(endpoint, address, ends), address, timeout, endpoint.options.max_reply)
    try:
        if secret is not None:
            log_in(connection, user, secret, ends)
    except BaseException:  # an interrupt as well: no other code knows of this connection, and it would stay open
        connection.close()
        raise
    return connection


def log_in(connection: Connection, user: str | None, secret: Secret, ends: float) -> None:
    """Log in; raises the server's refusal. No frame of its traceback shows the secret."""
    who = [] if user is None else [user.encode()]
    _expect(connection, hidden(pack(b"AUTH", *who, secret.reveal().encode())), ends)


def _connected(endpoint: RedisEndpoint, address: HostPort, ends: float) -> socket.socket:
    """A socket to that host, with TLS where the URL says so."""
    context = endpoint.options.context(backend=endpoint.scheme) if endpoint.tls else None
    made = _plain(address, ends)
    if context is None:
        return made
    try:
        made.settimeout(max(0.001, ends - time.monotonic()))
        return context.wrap_socket(made, server_hostname=address.host)
    except BaseException:
        made.close()
        raise


def _plain(address: HostPort, ends: float) -> socket.socket:
    """A connected socket. The addresses of the host share the time."""
    failed: OSError = OSError(f"{address.host} has no address")
    for family, kind, protocol, _, where in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
        try:
            made = socket.socket(family, kind, protocol)
        except OSError as error:  # a family that this machine has not got; or it has no more descriptors
            failed = error
            continue
        try:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.settimeout(max(0.001, ends - time.monotonic()))
            made.connect(where)
            return made
        except BaseException as error:
            made.close()
            if not isinstance(error, OSError):
                raise
            failed = error
    try:
        raise failed
    finally:
        del failed  # its traceback leads here: the two would keep each other


def _expect(connection: Connection, command: bytes, ends: float) -> None:
    """Send one command, whose error is raised."""
    connection.send(command)
    (reply,) = connection.receive(1, ends)
    if isinstance(reply, ErrorReply):
        raise reply


def _check(endpoint: RedisEndpoint, connection: Connection, ends: float) -> None:
    """Check that this is a Redis server of a usable version, in the mode that the URL names."""
    connection.send(pack(b"HELLO", b"2"))
    (reply,) = connection.receive(1, ends)
    if isinstance(reply, ErrorReply):
        if "unknown command" not in reply.text.lower():
            raise reply
        connection.send(pack(b"INFO", b"server"))  # older than 6.0
        (info,) = connection.receive(1, ends)
        found = [row[14:] for row in info.decode().splitlines() if row.startswith("redis_version:")] if info else []
        raise too_old(endpoint, found[0] if found else "5 or older")
    if not isinstance(reply, list):
        raise ProtocolError(f"HELLO was answered with {shown(reply)}")
    facts = dict(zip(reply[::2], reply[1::2], strict=False))
    version = facts.get(b"version", b"").decode()
    if numbers(version) < OLDEST:
        raise too_old(endpoint, version)
    mode = facts.get(b"mode", b"").decode()
    wanted = "cluster" if endpoint.deployment is Deployment.CLUSTER else "standalone"
    if mode != wanted:
        driver = "" if mode == "standalone" else f"+{mode}"
        raise ConfigurationError(
            f"{endpoint}: {connection.address} is a server in {mode} mode. Write {endpoint.scheme}{driver}://... for that.",
            backend=endpoint.scheme,
        )
    if endpoint.deployment is Deployment.SENTINEL and facts.get(b"role") != b"master":
        raise Unavailable(
            f"{endpoint}: {connection.address}, which the sentinels name, is no primary (any more). A failover is under way; "
            "the call may be repeated.",
            backend=endpoint.scheme,
        )
