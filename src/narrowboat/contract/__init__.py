"""What a backend must implement, and the values that cross that line.

Two abstract classes for drivers, `LockProvider` (locks.py) and `Broker` with its `Feed` (messages.py), and the entry
object by which a backend is found (backend.py). Users never touch these; they hold `narrowboat.locking` and
`narrowboat.messaging`, which the core builds on top. Whoever writes a backend reads these three files and
`docs/write-a-backend.md`, and nothing else.
"""

from narrowboat.contract.backend import BrokerBackend, Context, LockBackend
from narrowboat.contract.locks import (
    Busy,
    Grant,
    Holder,
    LockProvider,
    Mode,
    Released,
    Request,
)
from narrowboat.contract.messages import (
    Ack,
    Address,
    Broker,
    Delivery,
    Depth,
    Feed,
    Kind,
    Nack,
    Outcome,
    Outgoing,
    Properties,
    Receipt,
    Received,
    Reject,
    Return,
    Source,
)

__all__ = [
    "Ack",
    "Address",
    "Broker",
    "BrokerBackend",
    "Busy",
    "Context",
    "Delivery",
    "Depth",
    "Feed",
    "Grant",
    "Holder",
    "Kind",
    "LockBackend",
    "LockProvider",
    "Mode",
    "Nack",
    "Outcome",
    "Outgoing",
    "Properties",
    "Receipt",
    "Received",
    "Reject",
    "Released",
    "Request",
    "Return",
    "Source",
]
