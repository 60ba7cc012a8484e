"""The inbox: which messages a consumer has done, in its own database and in the transaction of the work itself.

    inbox = Inbox("billing")

    @worker.queue("orders")
    @inbox.once(engine.begin)
    def bill(message, connection): ...

A delivery that comes again finds its mark and does nothing. Use it where the work is writing to that database. It does not help
where the work is done elsewhere (a mail, a payment service): there the message's id is the idempotency key. The asyncio twin is
`narrowboat.aio.inbox`.
"""

from narrowboat.inbox.base import horizon
from narrowboat.inbox.inbox import Inbox

__all__ = ["Inbox", "horizon"]
