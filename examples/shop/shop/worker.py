"""What happens after a sale: `narrowboat run shop.worker:worker`, as many processes as you like.

A message may come twice, after a kill or a lost answer. So each handler writes down by the order's id what it has done, and
does it once. The messages are on NARROWBOAT_BROKER_URL, the election is on NARROWBOAT_LOCKS_URL, whatever these are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from narrowboat import aio
from narrowboat.aio.electing import Term
from shop.orders import ORDER, Order
from shop.store import store
from shop.sweep import sweep

log = logging.getLogger("shop")
worker = aio.Worker(grace=20)


async def hand_to_the_carrier(order: Order) -> None:
    """Stands for a call of the carrier's service, with the order's id as its idempotency key."""
    await asyncio.sleep(0.02)


@worker.queue("orders", codec=ORDER, concurrency=4, lease=15, timeout=10, retry=aio.Retry(first=1, most=60))
async def ship(message: aio.Message[Order]) -> None:
    """Ship what was sold, and tell whoever wants to know."""
    order = message.data
    await hand_to_the_carrier(order)
    await asyncio.to_thread(store().ship, order)
    # A redelivery publishes it again: the process may have been killed between these two lines.
    await worker.broker.topic("shipped", ORDER).publish(order, id=order.id)


@worker.subscription("shipped", "mail", codec=ORDER)
async def mail(message: aio.Message[Order]) -> None:
    """A mail for each order, once."""
    for order in await asyncio.to_thread(store().first_time, "mail", [message.data.id]):
        log.info("mail: your order %s is on its way", order)


@worker.subscription("shipped", "statistics", codec=ORDER, batch=100)
async def count(messages: Sequence[aio.Message[Order]]) -> None:
    """One transaction for up to a hundred orders."""
    new = await asyncio.to_thread(store().first_time, "statistics", [message.data.id for message in messages])
    log.info("statistics: %d more orders shipped", len(new))


@worker.elected("sweeper")
async def look_for_lost_orders(term: Term) -> None:
    """In one worker of all, each minute. A schedule would do, where the broker claims `dedup`."""
    while not await term.wait(60):
        log.info("%d orders published again", await sweep(worker.broker, older=600))
