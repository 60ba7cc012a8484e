"""Every error that Narrowboat raises, on one screen.

Catch the root to catch all of them; catch a branch to act on it. Each error says what was tried, what was found and
what to do next, knows whether trying the same call again can help (`retryable`) and which backend met it (`backend`).
A client library's own error is kept as the cause, with secrets removed.

    NarrowboatError
    ├── ConfigurationError (ValueError)   a URL, an option or an installation that cannot work
    │   └── TableMissing                  a table in the program's own database is not there; the error says how to make it
    ├── InvalidArgument    (ValueError)   an argument outside what is allowed; nothing was sent
    │   ├── Conflict                      what is asked disagrees with what is stored or held under that name
    │   └── NoTransaction                 a connection that commits each statement by itself; nothing was done
    ├── TransactionAborted                an earlier statement of the transaction failed; nothing was done
    ├── Unsupported                       the backend does not claim this; nothing was sent
    ├── Closed                            used after close(), or closed while waiting
    ├── Unavailable                       the backend did not answer, or not in time                    (retryable)
    ├── AccessDenied                      the backend refused this user
    ├── NestedCall                        from a signal handler or finaliser, in the middle of another call; nothing was sent
    ├── NotFound                          no such queue, topic or subscription, and `?declare=never`
    ├── LockError
    │   ├── LockTimeout    (TimeoutError) the wait ended without the lock; nothing is held              (retryable)
    │   ├── LeaseLost                     the lock is, or may be, no longer ours; see `reason`
    │   └── AlreadyHeld                   this thread or task holds that name and would wait for itself
    └── BrokerError
        ├── PublishFailed                 refused: it will never be delivered
        ├── PublishUnknown                no answer: it may be delivered; repeat with the same id       (retryable)
        ├── SettleUnknown                 no answer: it may be settled; it may come back                (retryable)
        ├── StaleDelivery                 the delivery is no longer ours; nothing was settled
        └── RequestTimeout (TimeoutError) no reply in time; a late one is dropped                       (retryable)
"""

from __future__ import annotations

import enum
from collections.abc import Mapping


class Reason(enum.Enum):
    """Why a lease ended other than by being released in time."""

    EXPIRED = "expired"  #: it was not renewed before the deadline on the holder's own clock
    TAKEN = "taken"  #: the backend answered that it has another holder, or none
    SESSION_ENDED = "session ended"  #: the session that carried it is gone
    EVICTED = "evicted"  #: an operator or another program evicted this holder
    PAUSED = "paused"  #: this process stood still for longer than the lease
    FORKED = "forked"  #: this is a forked child; the parent is the holder
    CLOSED = "closed"  #: the provider was closed
    RELEASED = "released"  #: it was released, and then used again


class NarrowboatError(Exception):
    """The root. `retryable`: the same call may succeed later. `backend`: the scheme that met it, or None."""

    retryable: bool = False
    backend: str | None = None

    def __init__(self, message: str, *, backend: str | None = None, retryable: bool | None = None) -> None:
        super().__init__(message)
        if backend is not None:
            self.backend = backend
        if retryable is not None:
            self.retryable = retryable

    def __reduce__(self) -> tuple[object, ...]:  # the default calls the class with the text alone, and a process pool breaks
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[NarrowboatError], args: tuple[object, ...], state: dict[str, object]) -> NarrowboatError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


def sentence(why: object) -> str:
    """The text of another error, ended once: for an error of ours that goes on after it.

    >>> sentence(OSError("no route")), sentence("It is down.."), sentence("Is it up?")
    ('no route.', 'It is down.', 'Is it up?')
    """
    text = str(why).rstrip(".")
    return text if text.endswith(("?", "!")) else f"{text}."


class ConfigurationError(NarrowboatError, ValueError):
    """A URL, an option or an installation that cannot work, found before anything was sent."""


class TableMissing(ConfigurationError):
    """A table of ours in the program's own database is not there, or is of another shape. The text says how to make it."""


class InvalidArgument(NarrowboatError, ValueError):
    """An argument outside what is allowed. Nothing was sent.

    `position`: which one of several that were given together (`publish_many`) it is, from 0; None elsewhere.
    """

    position: int | None = None


class Conflict(InvalidArgument):
    """What is asked disagrees with what is stored or held under that name. Nothing was changed.

    `stored`: the properties that a queue or subscription has, by name, where that is the disagreement and the backend tells.
    """

    stored: Mapping[str, float] | None = None


class NoTransaction(InvalidArgument):
    """The connection commits each statement by itself, so there is no transaction to join. Nothing was done."""


class TransactionAborted(NarrowboatError):
    """An earlier statement of the transaction failed, and it can only be rolled back. Nothing was done."""


class Unsupported(NarrowboatError):
    """The backend does not claim this. Nothing was sent."""


class Closed(NarrowboatError):
    """Used after `close()`, or closed while waiting. Nothing is held or waited for any more."""


class Unavailable(NarrowboatError):
    """The backend could not be reached or did not answer in time. What was asked may or may not have happened.

    `sent`: False where it is known that nothing of it was sent, so that it has not happened.
    """

    retryable = True
    sent: bool = True

    def __init__(
        self, message: str, *, backend: str | None = None, retryable: bool | None = None, sent: bool | None = None
    ) -> None:
        super().__init__(message, backend=backend, retryable=retryable)
        if sent is not None:
            self.sent = sent


class AccessDenied(NarrowboatError):
    """The backend refused this user or password, or the user has no right to this operation."""


class NotFound(NarrowboatError):
    """No such queue, topic or subscription, where the URL says `?declare=never`."""


class NestedCall(NarrowboatError):
    """A call that came out of the middle of another one in the same thread, and would wait for itself. Nothing was sent.

    A signal handler, a finaliser (`__del__`, which the collector may run anywhere) and a listener of events can strike there.
    What may be called at such a moment: `release()` of a possession, which is done as soon as the other call has ended;
    `stop()` of a consumer; whatever makes no call, such as `held.lost`. For all else set a flag, and act on it later.
    """


class LockError(NarrowboatError):
    """The branch of all errors that are about a lock. `name` is the lock's."""

    def __init__(self, message: str, *, name: str, backend: str | None = None) -> None:
        super().__init__(message, backend=backend)
        self.name = name


class LockTimeout(LockError, TimeoutError):
    """The time to wait was up. Nothing is held and nothing waits."""

    retryable = True


class LeaseLost(LockError):
    """The lock is, or may be, no longer ours. `reason` says why, `token` which generation it was."""

    def __init__(
        self, message: str, *, name: str, reason: Reason, token: int | None = None, backend: str | None = None
    ) -> None:
        super().__init__(message, name=name, backend=backend)
        self.reason = reason
        self.token = token


class AlreadyHeld(LockError):
    """The calling thread or task already holds that name and would wait for itself. Its possession is untouched."""


class BrokerError(NarrowboatError):
    """The branch of all errors that are about messages."""

    def __init__(
        self, message: str, *, id: str | None = None, backend: str | None = None, retryable: bool | None = None
    ) -> None:
        super().__init__(message, backend=backend, retryable=retryable)
        self.id = id


class PublishFailed(BrokerError):
    """The message `id` was refused. It will never be delivered."""


class PublishUnknown(BrokerError):
    """No answer: the message `id` may be delivered. Repeating with the same id is safe where `dedup` is claimed."""

    retryable = True


class SettleUnknown(BrokerError):
    """No answer: the message may be settled, or may come back."""

    retryable = True


class StaleDelivery(BrokerError):
    """The delivery is no longer ours. Nothing was settled, and another consumer's copy was not touched."""


class RequestTimeout(BrokerError, TimeoutError):
    """No reply in time. A late one is dropped."""

    retryable = True
