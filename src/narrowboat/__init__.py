"""Distributed locks and message queues behind one URL.

A service asks for `narrowboat.locks(url)` and `narrowboat.broker(url)`; the URL says which backend that is. The asyncio
twins of everything are in `narrowboat.aio`, loaded on first use.

    >>> import narrowboat
    >>> with narrowboat.locks("memory://doc") as locks, locks.lock("invoice:42", ttl=30) as held:
    ...     held.name
    'invoice:42'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrowboat.errors import (
    AccessDenied,
    AlreadyHeld,
    BrokerError,
    Closed,
    ConfigurationError,
    Conflict,
    InvalidArgument,
    LeaseLost,
    LockError,
    LockTimeout,
    NarrowboatError,
    NestedCall,
    NotFound,
    NoTransaction,
    PublishFailed,
    PublishUnknown,
    Reason,
    RequestTimeout,
    SettleUnknown,
    StaleDelivery,
    StaleWrite,
    TableMissing,
    TransactionAborted,
    Unavailable,
    Unsupported,
)
from narrowboat.locking import Held, Lock, Locks, locks
from narrowboat.messaging import Message, Messages, Messaging, Outbound, Queue, Receipt, Subscription, Topic, broker

if TYPE_CHECKING:
    from narrowboat import aio
    from narrowboat.working import Breaker, Retry, Tick, Worker

__version__ = "0.1.0"

__all__ = [
    "AccessDenied",
    "AlreadyHeld",
    "Breaker",
    "BrokerError",
    "Closed",
    "ConfigurationError",
    "Conflict",
    "Held",
    "InvalidArgument",
    "LeaseLost",
    "Lock",
    "LockError",
    "LockTimeout",
    "Locks",
    "Message",
    "Messages",
    "Messaging",
    "NarrowboatError",
    "NestedCall",
    "NoTransaction",
    "NotFound",
    "Outbound",
    "PublishFailed",
    "PublishUnknown",
    "Queue",
    "Reason",
    "Receipt",
    "RequestTimeout",
    "Retry",
    "SettleUnknown",
    "StaleDelivery",
    "StaleWrite",
    "Subscription",
    "TableMissing",
    "Tick",
    "Topic",
    "TransactionAborted",
    "Unavailable",
    "Unsupported",
    "Worker",
    "aio",
    "broker",
    "locks",
]


def __getattr__(name: str) -> object:
    if name == "aio":  # asyncio costs as much to import as all the rest: only programs that use it pay
        import narrowboat.aio

        return narrowboat.aio
    if name in ("Worker", "Retry", "Breaker", "Tick"):  # only programs that have a worker pay for it
        from narrowboat import working

        return getattr(working, name)
    if name == "events":  # only programs that have listeners pay for it
        import narrowboat.events

        return narrowboat.events
    raise AttributeError(f"module 'narrowboat' has no attribute {name!r}")
