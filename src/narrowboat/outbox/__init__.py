"""The outbox: a message that is stored in the program's own database, in the transaction of the work that it tells of.

    outbox = Outbox()

    with connection:  # one transaction: both rows or none
        connection.execute("INSERT INTO orders ...")
        outbox.publish(connection, "orders", body, key=order)

A relay (`worker.relay(outbox, connect)`, or `narrowboat relay`) publishes it to any broker: at least once, always under one id.
Use it where a broker does not take part in the program's transaction; `queue.send_in` does where it does. What comes twice the
inbox drops (`narrowboat.inbox`). The asyncio twin is `narrowboat.aio.outbox`.
"""

from narrowboat.outbox.outbox import Outbox

__all__ = ["Outbox"]
