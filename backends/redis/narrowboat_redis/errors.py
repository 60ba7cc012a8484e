"""Translates the errors of the socket and of the server into Narrowboat's own, with the original as the cause.

Both halves use it. An error reply inside a batch is translated in its member's place; a broken connection is raised.
"""

from __future__ import annotations

import errno
import functools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from narrowboat.driver import tls
from narrowboat.driver.texts import LONGEST, cut
from narrowboat.errors import AccessDenied, ConfigurationError, Conflict, NarrowboatError, Unavailable
from narrowboat_redis.resp import ErrorReply, NotRedis, ProtocolError, shown

if TYPE_CHECKING:
    from narrowboat.driver.endpoint import HostPort
    from narrowboat_redis.endpoint import RedisEndpoint

F = TypeVar("F", bound=Callable[..., Any])

#: The oldest server that has all commands in use here (`XAUTOCLAIM`, `LPOS` and `GETEX` came with 6.2).
OLDEST = (6, 2)

#: What Python raises when the parser meets an answer of an unexpected shape.
ODD = (TypeError, ValueError, KeyError, IndexError, AttributeError, RecursionError)

#: What a connection may raise, besides a `NarrowboatError`.
FAILURES = (OSError, ErrorReply, ProtocolError, *ODD)

#: A server before 7.0 wraps the error of a script's command in a text of its own, which has the code somewhere inside.
_CODES = re.compile(
    r"\b(ASK|BUSY|BUSYGROUP|CLUSTERDOWN|CROSSSLOT|LOADING|MASTERDOWN|MISCONF|MOVED|NOAUTH|NOPERM|NOREPLICAS|NOSCRIPT|OOM|READONLY"
    r"|TRYAGAIN|WRONGPASS|WRONGTYPE)\b"
)
#: How a script of ours names what it cannot use.
_DAMAGED = re.compile(r"\bDAMAGED (\S+) (\w+)")
#: In what a server answers, with the code ERR, when it gets a password and has none.
_TAKES_NONE = "without any password configured"
_REPEAT = "The call may be repeated"
#: What each code means, and what to do about it; {0} is the scheme. All of these conditions may end by themselves.
_PASSING = {
    "ASK": "moved a part of its keys to another node just now. Nothing was changed",
    "BUSY": "is busy with somebody's script that does not end. Look for it with SCRIPT KILL; nothing was changed",
    "CLUSTERDOWN": "says that the cluster is down: too many nodes cannot be reached. Nothing was changed; see CLUSTER INFO",
    "LOADING": "is still loading its data after a start. Nothing was changed; it answers when it is done",
    "MASTERDOWN": "is a replica that has lost its primary. Nothing was changed; look after the primary",
    "MISCONF": "refuses to write because it cannot save its data to the disk. Nothing was changed; see its log and its disk",
    "MOVED": "moved a part of its keys to another node, again and again. Nothing was changed; see CLUSTER NODES",
    "NOREPLICAS": "refuses to write because too few replicas are connected (min-replicas-to-write). Nothing was changed",
    "NOSCRIPT": "forgot a script that it had just been given. Nothing was changed; see whether something runs SCRIPT FLUSH",
    "OOM": "has reached its maxmemory and refuses to write. Nothing was changed; raise maxmemory, or free keys",
    "READONLY": "is a read-only replica. Nothing was changed; name the primary, or use {0}+sentinel:// or {0}+cluster://",
    "TRYAGAIN": "is moving keys between nodes just now. Nothing was changed",
}


def code_of(error: BaseException) -> str:
    """The code of an error reply, wherever it stands: READONLY, NOPERM, ... or ERR."""
    if "The user executing the script can't" in str(error):
        return "NOPERM"  # a server of 7.0 leaves the code out for a command inside a script
    found = _CODES.search(str(error))
    if found is not None:
        return found.group(1)
    return error.code if isinstance(error, ErrorReply) else "ERR"


def translate(met: object, endpoint: RedisEndpoint, *, doing: str) -> NarrowboatError:
    """What was `met`, an error or a reply that means nothing to us, as an error with its cause.

    `doing` ends the sentence "while ...": "taking the lock 'a'".
    """
    if isinstance(met, NarrowboatError):
        return met
    error = met if isinstance(met, BaseException) else ErrorReply(f"ERR unexpected answer {shown(met)}")
    found = _reply(error, endpoint, doing) if isinstance(error, ErrorReply) else _connection(error, endpoint, doing)
    if isinstance(found, Unavailable):
        found.sent = getattr(error, "sent", True)  # as `RedisClient` has noted it
    found.__cause__ = cause_of(error, endpoint)
    return found


def typed(method: F) -> F:
    """Decorate a method of an object with an `endpoint`: an answer of an unexpected shape becomes a `NarrowboatError`."""

    @functools.wraps(method)
    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        try:
            return method(self, *arguments, **named)
        except NarrowboatError:
            raise  # some of them are ValueErrors
        except ODD as error:
            odd = ProtocolError(f"a call was answered with something else than it returns: {type(error).__name__}: {error}")
            raise translate(odd, self.endpoint, doing="a call") from error

    return cast(F, call)


def no_thread(error: RuntimeError, endpoint: RedisEndpoint) -> Unavailable:
    """The error when the machine has no thread left."""
    found = Unavailable(
        f"{endpoint}: no thread could be started ({error}). {_REPEAT} when there are fewer.", backend=endpoint.scheme
    )
    found.__cause__ = error
    return found


def cause_of(error: BaseException, endpoint: RedisEndpoint) -> BaseException:
    """`error`, or a copy that is cut to a sane length and has no password, where a server has repeated it."""
    text = str(error)
    for secret in filter(None, (endpoint.secret, endpoint.options.sentinel_password)):
        text = text.replace(secret.reveal() or "\0", "***")
    return ErrorReply(cut(text)) if text != str(error) or len(text) > LONGEST else error


def of_sentinel(error: ErrorReply, endpoint: RedisEndpoint, address: HostPort) -> Exception:
    """What the sentinel at `address` refused, where more can be said of it than of a server's refusal."""
    text, backend = cut(cause_of(error, endpoint)), endpoint.scheme
    if "unknown command" in text.lower():
        return ConfigurationError(
            f"{endpoint}: {address} is no sentinel. Write {backend}://{address}/0 for a single server.", backend=backend
        )
    if code_of(error) in {"NOAUTH", "WRONGPASS"} or _TAKES_NONE in text:
        given = endpoint.options.sentinel_password is not None
        what = "sentinel_username= or sentinel_password=" if given else "a question without a login"
        return AccessDenied(
            f"{endpoint}: the sentinel {address} refused {what} ({text}). Nothing was changed. The sentinels have a login of "
            "their own, which is not the one before the hosts: correct sentinel_password= (and sentinel_username=), or leave "
            "it out where they have none.",
            backend=backend,
        )
    return error


def too_old(endpoint: RedisEndpoint, version: str) -> ConfigurationError:
    """The refusal of a server before `OLDEST`."""
    oldest = ".".join(map(str, OLDEST))
    return ConfigurationError(
        f"{endpoint} runs version {version}; needed is {oldest} or later. Upgrade the server.", backend=endpoint.scheme
    )


def _reply(error: BaseException, endpoint: RedisEndpoint, doing: str) -> NarrowboatError:
    code, text, backend = code_of(error), cut(cause_of(error, endpoint)), endpoint.scheme
    if code in _PASSING:
        return Unavailable(f"{endpoint} {_PASSING[code].format(backend)} (while {doing}: {text}). {_REPEAT}.", backend=backend)
    if code == "NOPERM":
        user = repr(endpoint.user or "default")
        return AccessDenied(
            f"{endpoint} does not allow the user {user} a command or key that is needed for {doing} ({text}). Nothing was "
            "changed. Give it the rights that the backend's page lists (ACL SETUSER).",
            backend=backend,
        )
    if code in {"NOAUTH", "WRONGPASS"} or _TAKES_NONE in text:
        what = "the user name or password in the URL" if endpoint.secret is not None else "that the URL gives no password"
        return AccessDenied(f"{endpoint} refused {what} ({text}). Nothing was changed. Correct the URL.", backend=backend)
    damaged = _DAMAGED.search(text)
    if damaged is not None:
        return Conflict(
            f"{endpoint}: what is needed for {doing} is damaged: the field {damaged[2]!r} of the hash {damaged[1]}. Nothing "
            "was changed. Remove that field (HDEL) and declare the source again, or delete the hash with what belongs to it.",
            backend=backend,
        )
    if code == "WRONGTYPE":
        return Conflict(
            f"{endpoint}: a key that is needed for {doing} holds something else already{_where(error)} ({text}). It may have "
            "been done in part. Delete that key, or take another prefix=.",
            backend=backend,
        )
    if "exhausted the last possible ID" in text:
        return Conflict(
            f"{endpoint}: the stream that is needed for {doing} holds an entry with the last id that there is{_where(error)} "
            f"({text}): another program chose it, and nothing can be stored behind it. Nothing was changed. Consume what is "
            "there, then delete the source.",
            backend=backend,
        )
    if "SCRIPT KILL" in text or "killed by user" in text:
        return Unavailable(
            f"{endpoint}: somebody ended our script with SCRIPT KILL while {doing}. Nothing was changed. {_REPEAT}.",
            backend=backend,
        )
    if "max number of clients" in text:
        return Unavailable(f"{endpoint} has reached its maxclients. Nothing was changed. {_REPEAT}.", backend=backend)
    if "DB index is out of range" in text or "invalid DB index" in text:
        return ConfigurationError(
            f"{endpoint} has no database {endpoint.number} ({text}). Name another one in the URL's path.", backend=backend
        )
    if "cluster support disabled" in text:
        return ConfigurationError(
            f"{endpoint} is no cluster ({text}). Write {endpoint.scheme}://host:port/0 for a single server.", backend=backend
        )
    if code == "CROSSSLOT":
        return ConfigurationError(f"{endpoint} is a cluster ({text}). Write {endpoint.scheme}+cluster://...", backend=backend)
    return NarrowboatError(f"{endpoint} refused {doing}: {text}", backend=backend)


def _where(error: BaseException) -> str:
    """Which keys it may be: the server does not say it, and all that a script touches beside a stream share one hash tag."""
    found = re.search(r"\{[^}]+\}", (getattr(error, "key", None) or b"").decode(errors="replace"))
    return f", one with {found[0]} in its name, or the stream that is called so" if found else ""


def _connection(error: BaseException, endpoint: RedisEndpoint, doing: str) -> NarrowboatError:
    backend, text = endpoint.scheme, cut(cause_of(error, endpoint)) or type(error).__name__
    chain = list(tls.chain(error))
    refused = tls.failure(error, str(endpoint), plain=endpoint.plain, backend=backend)
    if refused is not None:
        return refused
    if any(isinstance(each, OSError) and each.errno in (errno.EMFILE, errno.ENFILE) for each in chain):
        return Unavailable(
            f"{endpoint}: this process or machine has no file descriptors left for a connection, while {doing} ({text}). "
            f"Nothing was sent. {_REPEAT} when some are free.",
            backend=backend,
        )
    if isinstance(error, (ProtocolError, *ODD)) and not isinstance(error, NotRedis):
        return Unavailable(
            f"{endpoint} answered nonsense while {doing} ({text}). It may or may not have been done; the connection is made "
            "anew. See what stands between, or whether somebody replaced a script.",
            backend=backend,
        )
    if isinstance(error, NotRedis):
        other = f"If that port wants TLS, write {endpoint.secure}://." if not endpoint.tls else ""
        return ConfigurationError(
            f"{endpoint}: whatever answers there is no {endpoint.product} ({text}). Check host and port. {other}".rstrip(),
            backend=backend,
        )
    if any(isinstance(each, TimeoutError) for each in chain):
        hint = tls.hint(error, plain=endpoint.plain)  # a plain port waits for the rest of a command
        return Unavailable(
            f"{endpoint} did not answer in time while {doing} ({text}). It may or may not have been done. "
            f"See whether the server is up and reachable{hint}, or give it longer with timeout=.",
            backend=backend,
        )
    hint = "See whether the server is up and reachable" + tls.hint(error, plain=endpoint.plain)
    if ("closed" in text or "reset" in text) and not endpoint.tls:
        hint += f"; if that port wants TLS, write {endpoint.secure}://"
    return Unavailable(f"{endpoint}: the connection failed while {doing} ({text}). {hint}.", backend=backend)
