"""Where a half's tables are and how a connection to them is made: the URL and the options as libpq wants them.

The text for libpq is made anew for each connection and kept by nobody, as it has the password.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

from narrowboat.driver.endpoint import Endpoint
from narrowboat.driver.tls import Verify
from narrowboat.dsn import Url
from narrowboat.errors import ConfigurationError
from narrowboat_postgresql.errors import OLDEST, Broken, Refused, foreign_schema, odd_encoding, pooled, too_old
from narrowboat_postgresql.options import PORT, SCHEME, Common
from narrowboat_postgresql.schema import ensure

if TYPE_CHECKING:
    from narrowboat_postgresql.library import Link

#: What each connection of ours is set to, whatever the database's own settings are. A commit that was answered is on the disk.
#: Our functions look again after each lock, which an isolation above read committed would hide from them. Tables of a queue are
#: empty when they are analysed and full a second later: plans must not depend on that.
_SETTINGS = (
    "SET synchronous_commit = on; SET default_transaction_isolation = 'read committed';"
    " SET default_transaction_read_only = off; SET idle_in_transaction_session_timeout = 0; SET search_path = pg_catalog;"
    " SET client_min_messages = error; SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off;"
    " SET enable_mergejoin = off; SET jit = off; SET plan_cache_mode = force_generic_plan;"
    " SET DateStyle = ISO; SET extra_float_digits = 1; "
)

#: Modes of libpq. Without a check of the certificate it is still TLS, and nothing else.
_MODES = {Verify.FULL: "verify-full", Verify.CA: "verify-ca", Verify.NONE: "require"}


class Place:
    """See the module's text."""

    def __init__(self, url: Url, options: Common, timeout: float) -> None:
        self.endpoint = Endpoint.read(url, options, plain=SCHEME, port=PORT)
        self.options = options
        self.timeout = timeout
        if "\0" in self.endpoint.database or "\0" in (self.endpoint.user or ""):
            raise ConfigurationError("the URL's user or path has a zero byte: no user or database has one", backend=SCHEME)

    def connect(self, ends: float, *, work: bool = True) -> tuple[Link, int]:
        """A connection, ready for work, and the number of our namespace. `work`: it is for statements that take a while."""
        from narrowboat_postgresql.library import Link  # with the client library, which importing the backend must not load

        link = Link.connect(self._told, ends, step=self._step())
        try:
            if link.version < OLDEST:
                raise too_old(self.endpoint, link.version)
            if link.encoding != "UTF8":
                raise odd_encoding(self.endpoint, link.encoding)
            # A statement ends on the server before its caller gives up, so that its end is known.
            most = f"SET statement_timeout = {max(int(self.timeout * 900), 1)}; " if work else ""
            who = "SELECT pid, backend_start FROM pg_stat_get_activity(pg_backend_pid()) AS a"
            (row,) = link.script(f"{_SETTINGS}{most}{who}", ends)
            link.identity = ((row[0] or b"").decode(), (row[1] or b"").decode())
            if str(link.backend) != link.identity[0]:
                raise pooled(self.endpoint)
            space = ensure(link, self.endpoint, self.options.schema, self.options.space, ends)
        except BaseException as error:
            link.close()
            if isinstance(error, Refused) and error.state in {"42710", "42P07", "42P06", "42723"}:
                raise foreign_schema(self.endpoint, self.options.schema, error) from error
            if isinstance(error, Broken):
                error.sent = False  # nothing of the call that needs this connection
            raise
        return link, space

    def _step(self) -> Callable[[Callable[[], int]], int]:
        if not self.endpoint.tls:
            return lambda work: work()
        from narrowboat.driver import handshake  # imports ssl

        return handshake.step

    def _told(self) -> bytes:
        endpoint, options = self.endpoint, self.options
        told: dict[str, object] = {
            "host": ",".join(each.host for each in endpoint.hosts),
            "port": ",".join(str(each.port) for each in endpoint.hosts),
            "user": endpoint.user,
            "password": endpoint.secret.reveal() if endpoint.secret is not None else None,
            "dbname": endpoint.database or None,
            "client_encoding": "UTF8",
            "application_name": "narrowboat",
            "target_session_attrs": "read-write",
            "gssencmode": "disable",
            "keepalives_idle": 20,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "sslmode": _MODES[options.checks] if endpoint.tls else "disable",
        }
        if endpoint.tls:
            told |= {
                "sslrootcert": options.ca or _authorities() if options.checks is not Verify.NONE else os.devnull + "/none",
                "sslcert": options.cert or os.devnull + "/none",
                "sslkey": options.key or options.cert,
                "sslpassword": options.key_password.reveal() if options.key_password is not None else None,
                "ssl_min_protocol_version": "TLSv1.2",
            }
        return " ".join(f"{name}={_quoted(value)}" for name, value in told.items() if value is not None).encode()


def _authorities() -> str:
    """The system's: libpq's own idea of them is that of the machine it was built on."""
    return os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile or "system"


def _quoted(value: object) -> str:
    text = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"
