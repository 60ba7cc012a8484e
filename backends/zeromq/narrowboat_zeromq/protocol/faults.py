"""Errors on the wire: `["error", type, text, details]`, by their names in the tree of `narrowboat.errors`.

A type that is not known here (a newer server's) becomes an `Unavailable` with its text. Details are what a program may act on:
`retryable`, `sent`, `id`, `name`, `reason`, `token`, `stored`.
"""

from __future__ import annotations

import logging
from typing import Any

from narrowboat.driver.texts import cut
from narrowboat.errors import (
    AccessDenied,
    BrokerError,
    Closed,
    ConfigurationError,
    Conflict,
    InvalidArgument,
    LeaseLost,
    NarrowboatError,
    NotFound,
    PublishFailed,
    PublishUnknown,
    Reason,
    SettleUnknown,
    StaleDelivery,
    Unavailable,
    Unsupported,
)
from narrowboat_zeromq.options import SCHEME

_DETAILS = ("sent", "id", "name", "token", "stored", "position")
#: Those whose constructors take what others do not; all of them are made without one.
_KINDS: dict[str, type[NarrowboatError]] = {
    kind.__name__: kind
    for kind in (
        ConfigurationError,
        InvalidArgument,
        Conflict,
        Unsupported,
        Closed,
        Unavailable,
        AccessDenied,
        NotFound,
        LeaseLost,
        PublishFailed,
        PublishUnknown,
        SettleUnknown,
        StaleDelivery,
    )
}
#: Characters of an error's text.
_LONGEST = 4000

logger = logging.getLogger("narrowboat.zeromq")


def to_wire(error: object) -> list[Any]:
    """An error, for the wire. What is none of ours is a fault of the server's; the log has it whole."""
    if not isinstance(error, NarrowboatError):
        logger.error(
            "the driver raised what is no error of Narrowboat's", exc_info=error if isinstance(error, Exception) else None
        )
        return ["error", "Unavailable", f"the server met {type(error).__name__}; its log says more", {"retryable": False}]
    details: dict[str, Any] = {"retryable": error.retryable}
    for name in _DETAILS:
        value = getattr(error, name, None)
        if value is not None:
            details[name] = dict(value) if name == "stored" else value
    reason = getattr(error, "reason", None)
    if isinstance(reason, Reason):
        details["reason"] = reason.value
    return ["error", type(error).__name__, str(error)[:_LONGEST], details]


def from_wire(value: object) -> NarrowboatError:
    """An error, off the wire. Nothing in it can make this raise."""
    if not (isinstance(value, list) and len(value) == 4 and value[0] == "error" and isinstance(value[3], dict)):
        return Unavailable(f"the server answered what is no answer: {cut(value)}", backend=SCHEME, retryable=False)
    _, name, text, details = value
    kind = _KINDS.get(str(name), Unavailable)
    error = kind.__new__(kind)
    error.args = (cut(text, _LONGEST),)
    error.backend = SCHEME
    for key in ("retryable", *_DETAILS):
        if key in details:
            setattr(error, key, details[key])
    if isinstance(error, BrokerError):
        error.id = details.get("id")
    if isinstance(error, LeaseLost):
        error.name, error.token = str(details.get("name", "")), details.get("token")
        known = {reason.value: reason for reason in Reason}
        error.reason = known.get(str(details.get("reason")), Reason.TAKEN)
    return error
