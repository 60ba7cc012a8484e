"""Translates the errors of kazoo, of the socket and of the server into Narrowboat's own, with the original as the cause."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kazoo import exceptions as kazoo

from narrowboat.driver import tls
from narrowboat.driver.texts import cut
from narrowboat.errors import AccessDenied, ConfigurationError, NarrowboatError, Unavailable
from narrowboat_zookeeper.options import SCHEME, TLS_SCHEME

if TYPE_CHECKING:
    from narrowboat_zookeeper.options import Ensemble

#: The whole connection failed, and every request that was under way has an unknown outcome.
BROKEN = (
    kazoo.ConnectionLoss,
    kazoo.ConnectionClosedError,
    kazoo.SessionExpiredError,
    kazoo.SessionMovedError,
    kazoo.OperationTimeoutError,
    kazoo.AuthFailedError,
)

REPEAT = "The call may be repeated."


def unknown(where: Ensemble, error: Exception) -> NarrowboatError:
    """The error for an exchange that broke off with `error`, one of `BROKEN`."""
    if isinstance(error, kazoo.AuthFailedError):
        found: NarrowboatError = AccessDenied(
            f"{where} refused the user {where.user!r} of the URL. Nothing was changed. Correct the user and password.",
            backend=where.scheme,
        )
    elif isinstance(error, kazoo.SessionExpiredError):
        found = Unavailable(
            f"the session with {where} ended while a call was under way, and every lock that it carried with it. {REPEAT}",
            backend=where.scheme,
        )
    else:
        found = Unavailable(
            f"the connection to {where} broke while a call was under way ({_name(error)}); what was asked may or may not have "
            f"happened. {REPEAT}",
            backend=where.scheme,
        )
    found.__cause__ = error
    return found


def denied(where: Ensemble) -> NarrowboatError:
    """The error for a client that the servers refuse."""
    return unknown(where, kazoo.AuthFailedError())


def unreachable(where: Ensemble, waited: float, cause: Exception | None) -> NarrowboatError:
    """The error for a server, or an where without a quorum, that does not let us in."""
    if cause is not None:
        refused = tls.failure(cause, str(where), plain=SCHEME, backend=where.scheme)
        if refused is not None:
            return refused
    why = _name(cause) if cause is not None else "no session was granted"
    hint = tls.hint(cause, plain=SCHEME)
    if cause is None and not where.tls:
        hint = f"; if that port wants TLS, write {TLS_SCHEME}://"
    found = Unavailable(
        f"no session with {where} after {waited:.2g} s ({why}). Look whether the servers run, have a quorum, and can be "
        f"reached from here{hint}. {REPEAT}",
        backend=where.scheme,
    )
    found.__cause__ = cause
    return found


def missing(where: Ensemble) -> NarrowboatError:
    """The error for a path of the URL that does not exist."""
    return ConfigurationError(
        f"the path {where.base} of the URL does not exist on {','.join(map(str, where.hosts))}. Make it, or let it be made "
        "with ?create=true.",
        backend=where.scheme,
    )


def no_room(where: Ensemble, error: Exception) -> NarrowboatError:
    """The error when the program has no descriptor or no thread left for a session."""
    return Unavailable(
        f"{where} was not asked: this process has no room for another session ({_name(error)}). Raise its limits (ulimit -n, "
        f"ulimit -u), or close what it does not need. {REPEAT}",
        backend=where.scheme,
    )


def timed_out(where: Ensemble, timeout: float) -> NarrowboatError:
    """The error for an exchange without an answer."""
    return Unavailable(
        f"{where} did not answer within {timeout:g} s; what was asked may or may not have happened. The connection was broken "
        f"off. {REPEAT}",
        backend=where.scheme,
    )


def refused(where: Ensemble, error: Exception, *, doing: str) -> NarrowboatError:
    """The error for one request that the server answered with `error`, while `doing`: "taking the lock 'a'"."""
    found: NarrowboatError
    if isinstance(error, kazoo.NoAuthError):
        who = f"the user {where.user!r}" if where.user is not None else "a client without a user"
        found = AccessDenied(
            f"{where} does not allow {who} what is needed for {doing}: creating, reading and deleting under "
            f"{where.base}/narrowboat. Look at the ACLs there (getAcl), and at the user in the URL.",
            backend=where.scheme,
        )
    elif isinstance(error, kazoo.InvalidACLError):
        found = ConfigurationError(
            f"{where} does not take the ACL acl={where.acl.value} for the user {where.user!r}, while {doing}. Nothing was "
            "changed. Name a user in the URL, or use acl=open.",
            backend=where.scheme,
        )
    elif isinstance(error, BROKEN):
        found = unknown(where, error)
    else:
        found = Unavailable(f"{where} answered {_name(error)} while {doing}. {REPEAT}", backend=where.scheme)
    found.__cause__ = error
    return found


def _name(error: Exception) -> str:
    return f"{type(error).__name__}: {cut(error)}" if str(error) else type(error).__name__
