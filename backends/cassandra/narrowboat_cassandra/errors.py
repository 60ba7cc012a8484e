"""Translates the errors of cassandra-driver, of the network and of the nodes into Narrowboat's own."""

from __future__ import annotations

import cassandra
from cassandra import cluster, connection

from narrowboat.driver import tls
from narrowboat.driver.texts import cut
from narrowboat.errors import AccessDenied, ConfigurationError, NarrowboatError, Unavailable
from narrowboat_cassandra.options import SCHEME, TLS_SCHEME, Ring

REPEAT = "The call may be repeated."
#: What a user of the table needs, as the pages say it.
RIGHTS = (
    "SELECT and MODIFY on the table (also CREATE on the keyspace for ?create=true, and SELECT on system_views.settings for "
    "?durability=disk)"
)


def translate(error: Exception, ring: Ring, *, doing: str) -> NarrowboatError:
    """The error for one exchange that failed with `error`, while `doing`: "taking the lock 'a'"."""
    found = _known(error, ring, doing)
    found.__cause__ = error
    return found


def _known(error: Exception, ring: Ring, doing: str) -> NarrowboatError:
    if isinstance(error, NarrowboatError):
        return error
    for each in [*tls.chain(error), *_reasons(error)]:
        if isinstance(each, (cassandra.AuthenticationFailed, cassandra.Unauthorized)):
            return _denied(each, ring, doing)
    if isinstance(error, cassandra.RequestValidationException):
        return _refused(error, ring, doing)
    if isinstance(error, cassandra.OperationTimedOut):
        return Unavailable(
            f"{ring}: no answer in time while {doing}; it may or may not have happened. {REPEAT}", backend=ring.scheme
        )
    if isinstance(error, (cluster.NoHostAvailable, connection.ConnectionException, connection.ProtocolError, OSError)):
        return unreachable(error, ring)
    if isinstance(error, cassandra.Unavailable):
        return Unavailable(
            f"{ring}: too few replicas of the keyspace are alive for {doing} ({cut(error)}). Nothing was changed. Look at the "
            f"nodes, and whether the keyspace's replication asks for more than there are. {REPEAT}",
            backend=ring.scheme,
        )
    return Unavailable(f"{ring}: {doing} failed ({cut(error)}); it may or may not have happened. {REPEAT}", backend=ring.scheme)


def _denied(error: BaseException, ring: Ring, doing: str) -> AccessDenied:
    if isinstance(error, cassandra.AuthenticationFailed):
        who = f"the user {ring.user!r}" if ring.user is not None else "a client without a user"
        return AccessDenied(
            f"{ring} refused {who}. Nothing was changed. Correct the user and password of the URL: "
            f"{ring.scheme}://user:password@host/keyspace.",
            backend=ring.scheme,
        )
    return AccessDenied(
        f"{ring} does not allow the user {ring.user!r} what is needed for {doing} ({cut(error)}). Locks need {RIGHTS}.",
        backend=ring.scheme,
    )


def _refused(error: Exception, ring: Ring, doing: str) -> NarrowboatError:
    said = cut(error)
    low = said.lower()
    if "keyspace" in low and "does not exist" in low:
        return ConfigurationError(
            f"{ring}: there is no keyspace {ring.keyspace!r}. Make it, or let it be made with ?create=true&replication=N.",
            backend=ring.scheme,
        )
    if "does not exist" in low or "unconfigured table" in low:
        return ConfigurationError(
            f"{ring}: there is no table {ring.table}. Make it as the page of this backend says, or let it be made with "
            "?create=true.",
            backend=ring.scheme,
        )
    if "undefined column" in low or "unknown identifier" in low or "invalid" in low or "cannot" in low:
        return ConfigurationError(
            f"{ring}: the table {ring.table} is not one of Narrowboat's ({said}). Take another by ?table=.", backend=ring.scheme
        )
    return ConfigurationError(f"{ring} refused {doing} ({said}).", backend=ring.scheme)


def unreachable(error: Exception, ring: Ring) -> NarrowboatError:
    """The error for a ring that lets nobody in, or of which no node is left to ask."""
    reasons = _reasons(error)
    for each in reasons:
        secure = tls.failure(each, str(ring), plain=SCHEME, backend=ring.scheme)
        if secure is not None:
            return secure
    said = cut(reasons[0])
    if any(isinstance(each, connection.ProtocolError) for each in reasons):
        return Unavailable(
            f"{ring} answered what Cassandra does not ({said}). Look what listens there: it is the port of CQL (9042), and "
            f"{TLS_SCHEME}:// where that port wants TLS. {REPEAT}",
            backend=ring.scheme,
        )
    hint = tls.hint(reasons[0], plain=SCHEME)
    if not ring.tls and not any(isinstance(each, ConnectionRefusedError) for each in reasons):
        hint = f"; if that port wants TLS, write {TLS_SCHEME}://"
    return Unavailable(
        f"{ring} could not be reached ({said}). Look whether a node runs and listens there{hint}. {REPEAT}", backend=ring.scheme
    )


def _reasons(error: Exception) -> list[BaseException]:
    """What the nodes' connections failed with, the error itself where nobody says."""
    errors = getattr(error, "errors", None)
    found = list(errors.values()) if isinstance(errors, dict) else []
    return [each for each in found if isinstance(each, BaseException)] or [error]
