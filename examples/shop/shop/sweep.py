"""Publish again what was sold long ago and not shipped: a web process may be killed between the sale and the publish.

The table `sold` is what counts. The worker ships an order once, so one that is in the queue all the same does no harm.
"""

from __future__ import annotations

import asyncio

from narrowboat import aio
from shop.orders import ORDER
from shop.store import store


async def sweep(broker: aio.Messaging, older: float) -> int:
    """How many orders were published again: those not shipped, and not published for `older` seconds."""
    orders = await asyncio.to_thread(store().overdue, older)
    await broker.queue("orders", codec=ORDER).publish_many([aio.Outbound(order, id=order.id) for order in orders])
    return len(orders)  # one that was not published is overdue again
