"""The same nouns for asyncio: `async with`, `await` and `async for` where the sync face blocks.

    locks = narrowboat.aio.locks("redis://localhost/0")
    async with locks.lock("invoice:42", ttl=30) as held:
        await save(invoice, fence=held.token)

Names and signatures are those of `narrowboat`, and the loops behind both are the same (`_locks`, `_messages`). No waiter
parks a thread and no driver call runs on the event loop. One face may be used from several loops.
"""

from typing import TYPE_CHECKING

from narrowboat.aio.locking import Held, Lock, Locks, locks
from narrowboat.aio.messaging import Message, Messages, Messaging, Queue, Subscription, Topic, broker
from narrowboat.messaging import Outbound, Receipt

if TYPE_CHECKING:
    from narrowboat.aio.working import Breaker, Retry, Tick, Worker

__all__ = [
    "Breaker",
    "Held",
    "Lock",
    "Locks",
    "Message",
    "Messages",
    "Messaging",
    "Outbound",
    "Queue",
    "Receipt",
    "Retry",
    "Subscription",
    "Tick",
    "Topic",
    "Worker",
    "broker",
    "locks",
]


def __getattr__(name: str) -> object:
    if name in ("Worker", "Retry", "Breaker", "Tick"):  # only programs that have a worker pay for it
        from narrowboat.aio import working

        return getattr(working, name)
    raise AttributeError(f"module 'narrowboat.aio' has no attribute {name!r}")
