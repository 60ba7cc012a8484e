"""Translates what libpq and the server say into Narrowboat's own errors; and the refusals of this backend.

A refusal by the server is the end of its transaction, so nothing of it happened. A connection that broke says nothing about
what was under way, unless it broke before anything was sent.
"""

from __future__ import annotations

import re

from narrowboat.driver.endpoint import Endpoint
from narrowboat.driver.sources import Refusals
from narrowboat.driver.texts import cut
from narrowboat.errors import AccessDenied, ConfigurationError, NarrowboatError, Unavailable
from narrowboat_postgresql.options import SCHEME

#: What all keepers of messages refuse in the same words.
refuse = Refusals(SCHEME)

#: The oldest server in use here, as libpq counts: 13.0.
OLDEST = 130000
#: What a statement of ours meets where somebody has removed or changed our tables.
GONE = frozenset({"3F000", "42P01", "42883", "42703", "42704"})
_REPEAT = "The call may be repeated."


class Refused(Exception):
    """The server refused a statement, whose transaction it has rolled back."""

    def __init__(self, state: str, text: str) -> None:
        super().__init__(f"{cut(text)} (SQLSTATE {state})")
        self.state = state


class Broken(Exception):
    """The connection could not be made or broke. `sent`: whether anything of the call may have left; `late`: time was up."""

    def __init__(self, text: str, *, sent: bool = True, late: bool = False) -> None:
        super().__init__(cut(text))
        self.sent = sent
        self.late = late


#: What a statement that was refused means, by the beginning of its SQLSTATE, and what to do about it. Nothing was changed.
_PASSING = {
    "25006": "is read-only: a standby, or its default_transaction_read_only is on. Name the primary",
    "40": "gave up a transaction of ours for another one",
    "53100": "has no room left on its disk. Make room",
    "53": "has no memory, connections or other means left",
    "54": "met a limit of its own",
    "55": "did not get a lock in time: look for a long transaction on our tables (pg_stat_activity)",
    "57014": "took too long and was told to stop: look for a long transaction on our tables, or raise timeout=",
    "57": "is shutting down or starting",
    "58": "met an error of its system: see its log",
    "XX": "met an error inside: see its log",
}

#: What to do about a pooler.
_NO_POOLER = (
    "is a connection pooler (such as PgBouncer) and not the server itself: settings, prepared statements and LISTEN of ours "
    "would end up in connections of others. Nothing was changed. Name the server's own host and port; a process "
    "needs four to nine connections"
)

#: What the server or libpq says while a connection is made. (pattern, kind of error, what to do)
_LOGIN: tuple[tuple[str, type[NarrowboatError], str], ...] = (
    (r"unsupported startup parameter", ConfigurationError, f"It {_NO_POOLER}"),
    (r"no encryption|SSL off", ConfigurationError, f"This server asks for TLS: write {SCHEME}s://"),
    (
        r"does not support SSL|SSL error: (wrong version|unsupported protocol|no protocols)|sslv3 alert|tlsv1",
        ConfigurationError,
        f"No TLS connection could be made: a plain port takes {SCHEME}://; a server that asks for a certificate gets it by "
        "?cert= and ?key=; needed is TLS 1.2 or later",
    ),
    (
        r"does not match host name",
        ConfigurationError,
        "Its certificate was not accepted. Name the host as it stands in the certificate's subjectAltName; ?verify=ca checks "
        "its authority and not its name",
    ),
    (
        r"certificate verify failed|self.signed|unable to get local issuer|expired|not yet valid",
        ConfigurationError,
        "Its certificate was not accepted, and libpq does not say why. Name the file of its authority with ?ca=; "
        "if that is right, see whether the certificate has expired, or set this machine's clock",
    ),
    (r"could not (load|read) (private key|certificate|root)", ConfigurationError, "See the files of ?ca=, ?cert= and ?key="),
    (r"connection requires a valid client certificate", ConfigurationError, "Give one with ?cert= and ?key="),
    (
        r"password authentication failed|authentication failed|no password supplied|role .* does not exist|pg_hba\.conf"
        r"|permission denied|not permitted to log in",
        AccessDenied,
        "It refused the user, the password or the database of the URL. Nothing was changed. Correct the URL, or the server's "
        "rights and pg_hba.conf",
    ),
    (
        r"database .* does not exist",
        ConfigurationError,
        "Name another database in the URL's path, or make it (CREATE DATABASE)",
    ),
    (
        r"invalid response to SSL negotiation|expected authentication request|invalid length of startup packet"
        r"|unsupported frontend protocol",
        ConfigurationError,
        "Whatever answers there is no PostgreSQL. Check host and port",
    ),
    (
        r"read-only|hot standby|not.*primary",
        Unavailable,
        "It is a read-only standby. Name the primary, or all servers of the group",
    ),
    (r"too many clients|connection slots|too many connections", Unavailable, "It has no connections left (max_connections)"),
)


def translate(error: Exception, endpoint: Endpoint, *, doing: str) -> NarrowboatError:
    """The error to raise, with its cause. `doing` ends the sentence "while ..."."""
    if isinstance(error, NarrowboatError):
        return error
    found: NarrowboatError
    if isinstance(error, Refused):
        found = _refused(error, endpoint, doing)
    elif isinstance(error, Broken):
        found = _broken(error, endpoint, doing)
    else:
        found = Unavailable(f"{endpoint}: {doing} met {type(error).__name__}: {cut(error)}. {_REPEAT}", backend=endpoint.scheme)
    found.__cause__ = hidden(error, endpoint)
    return found


def hidden(error: Exception, endpoint: Endpoint) -> Exception:
    """`error`, or a copy without the password where somebody has repeated it."""
    secret = endpoint.secret.reveal() if endpoint.secret is not None else ""
    return Broken(str(error).replace(secret, "***")) if secret and secret in str(error) else error


def _refused(error: Refused, endpoint: Endpoint, doing: str) -> NarrowboatError:
    backend, state, text = endpoint.scheme, error.state, hidden(error, endpoint)
    if state == "42501":
        return AccessDenied(
            f"{endpoint} does not allow the user {endpoint.user or 'of this process'!r} what is needed for {doing} ({text}). "
            "Nothing was changed. Give it the rights that the backend's page lists (GRANT).",
            backend=backend,
        )
    if state in GONE:
        return Unavailable(
            f"{endpoint}: the tables, as this program knows them, were removed or changed while {doing} ({text}). Nothing was "
            f"changed. They are looked for again. {_REPEAT}",
            backend=backend,
            sent=False,
        )
    for begin in (state, state[:2]):
        if begin in _PASSING:
            return Unavailable(
                f"{endpoint} {_PASSING[begin]} (while {doing}: {text}). Nothing was changed. {_REPEAT}",
                backend=backend,
                sent=False,
            )
    return NarrowboatError(f"{endpoint} refused {doing}: {text}. Nothing was changed.", backend=backend)


def _broken(error: Broken, endpoint: Endpoint, doing: str) -> NarrowboatError:
    backend, text = endpoint.scheme, str(hidden(error, endpoint))
    if not error.sent:
        for pattern, kind, advice in _LOGIN:
            if re.search(pattern, text):
                found = kind(f"{endpoint} could not be used ({text}). {advice}.", backend=backend)
                if isinstance(found, Unavailable):
                    found.sent = False
                return found
        hint = f"; if that port has no TLS, write {SCHEME}://" if endpoint.tls else ""
        return Unavailable(
            f"{endpoint} could not be reached while {doing} ({text}). Nothing was sent. See whether the server is up and "
            f"reachable{hint}. {_REPEAT}",
            backend=backend,
            sent=False,
        )
    if error.late:
        return Unavailable(
            f"{endpoint} did not answer in time while {doing}. It may or may not have been done. See whether the server is up "
            f"and reachable, or give it longer with timeout=. {_REPEAT}",
            backend=backend,
        )
    return Unavailable(
        f"the connection to {endpoint} broke while {doing} ({text}). It may or may not have been done. {_REPEAT}",
        backend=backend,
    )


def too_old(endpoint: Endpoint, version: int) -> ConfigurationError:
    """The refusal of a server before `OLDEST`."""
    return ConfigurationError(
        f"{endpoint} runs version {version // 10000}; needed is {OLDEST // 10000} or later. Upgrade the server.",
        backend=endpoint.scheme,
    )


def odd_encoding(endpoint: Endpoint, encoding: str) -> ConfigurationError:
    """The refusal of a database that cannot hold every name."""
    return ConfigurationError(
        f"the database of {endpoint} has the encoding {encoding}, which cannot hold every name and header. Nothing was "
        "changed. Make one with ENCODING 'UTF8' and name it in the URL's path.",
        backend=endpoint.scheme,
    )


def pooled(endpoint: Endpoint) -> ConfigurationError:
    """The refusal of a pooler, which hands a connection to somebody else after each transaction."""
    return ConfigurationError(f"{endpoint} {_NO_POOLER}.", backend=endpoint.scheme)


def newer_schema(endpoint: Endpoint, schema: str, found: int, known: int) -> ConfigurationError:
    """The refusal of tables that a later version of this program has changed."""
    return ConfigurationError(
        f"{endpoint}: the schema {schema} is of version {found}, and this Narrowboat knows {known}. Nothing was changed. "
        "Upgrade Narrowboat here, or name another schema with ?schema=.",
        backend=endpoint.scheme,
    )


def foreign_schema(endpoint: Endpoint, schema: str, error: Exception) -> ConfigurationError:
    """The refusal where our tables cannot be made because of what is there."""
    return ConfigurationError(
        f"{endpoint}: the schema {schema} holds something else where the tables should be made ({cut(error)}). Nothing was "
        "changed. Name another schema with ?schema=.",
        backend=endpoint.scheme,
    )
