"""Where a half's tables are and how a connection to them is made: the URL and the options as libpq wants them.

The text for libpq is made anew for each connection and kept by nobody, as it has the password.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from narrowboat.driver.endpoint import Endpoint
from narrowboat.driver.tls import Verify
from narrowboat.dsn import Url
from narrowboat.errors import ConfigurationError
from narrowboat_postgresql.errors import GONE, OLDEST, Broken, Refused, foreign_schema, odd_encoding, pooled, too_old
from narrowboat_postgresql.options import PORT, SCHEME, Common
from narrowboat_postgresql.schema import ensure, look

if TYPE_CHECKING:
    from narrowboat_postgresql.library import Link

#: What each connection of ours is set to, whatever the database's own settings are. A commit that was answered is on the disk.
#: Our functions look again after each lock, which an isolation above read committed would hide from them. Tables of a queue are
#: empty when they are analysed and full a second later: plans must not depend on that.
_SETTINGS = {
    "synchronous_commit": "on",
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": "0",
    "search_path": "pg_catalog",
    "client_min_messages": "error",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "DateStyle": "ISO",
    "extra_float_digits": "1",
}

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

    def connect(self, ends: float) -> tuple[Link, int]:
        """A connection, ready for work, and the number of our namespace."""
        from narrowboat_postgresql.library import Link  # with the client library, which importing the backend must not load

        link = Link.connect(self._told, ends, step=self._step())
        try:
            if link.version < OLDEST:
                raise too_old(self.endpoint, link.version)
            if link.encoding != "UTF8":
                raise odd_encoding(self.endpoint, link.encoding)
            # One question in the usual case: a connection is made of few round trips, for networks where each takes long.
            who = "SELECT pid, backend_start, {} FROM pg_stat_get_activity(pg_backend_pid()) AS a"
            schema, space = self.options.schema, self.options.space
            try:
                (row,) = link.script(who.format(look(schema, space)), ends)
            except Refused as error:
                if error.state not in GONE:
                    raise
                (row,) = link.script(who.format("0, NULL"), ends)  # the schema is not there
            process, start, version, number = row
            link.identity = ((process or b"").decode(), (start or b"").decode())
            if str(link.backend) != link.identity[0]:
                raise pooled(self.endpoint)
            seen = int(version or b"0"), None if number is None else int(number)
            found = ensure(link, self.endpoint, schema, space, seen, ends)
        except BaseException as error:  # an interrupt as well: nobody else knows of the connection
            link.close()
            if isinstance(error, Refused) and error.state in {"42710", "42P07", "42P06", "42723"}:
                raise foreign_schema(self.endpoint, self.options.schema, error) from error
            if isinstance(error, Broken):
                error.sent = False  # nothing of the call that needs this connection
            raise
        return link, found

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
            # With the first words of the connection, which costs no round trip. A statement ends on the server before its
            # caller gives up, so that its end is known.
            "options": _options({**_SETTINGS, "statement_timeout": str(max(int(self.timeout * 900), 1))}),
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


def _options(settings: Mapping[str, str]) -> str:
    return " ".join(f"-c {name}={value}".replace(" ", "\\ ").replace("-c\\ ", "-c ") for name, value in settings.items())


def _quoted(value: object) -> str:
    text = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"
