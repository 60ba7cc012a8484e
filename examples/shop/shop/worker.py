"""What happens after a sale: `narrowboat run shop.worker:worker`, as many processes as you like.

One of them relays what the sales have stored in the outbox. A message may come twice, after a kill or a lost answer. So each
handler writes down by the order's id what it has done, and does it once.

The messages are on NARROWBOAT_BROKER_URL, whatever that is. The ticks of the schedule are there too; where that broker does not
claim `dedup`, as RabbitMQ and Kafka do not, SHOP_SCHEDULES_URL names one for the ticks that does.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence

from narrowboat import aio
from shop.orders import ORDER, Order
from shop.store import MAIL, OUTBOX, STATISTICS, store

log = logging.getLogger("shop")
logging.basicConfig(level=logging.INFO)
worker = aio.Worker(schedules=os.environ.get("SHOP_SCHEDULES_URL"), grace=20)
SWEEP = float(os.environ.get("SHOP_SWEEP", "60"))  # seconds from sweep to sweep
LATE = 600  # seconds
# Its statements on a file last for milliseconds. A database behind a network wants a client for asyncio here.
worker.relay(OUTBOX, lambda: store().connect(), poll=0.2)


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
    for order in await asyncio.to_thread(store().first_time, MAIL, [message]):
        log.info("mail: your order %s is on its way", order)


@worker.subscription("shipped", "statistics", codec=ORDER, batch=100)
async def count(messages: Sequence[aio.Message[Order]]) -> None:
    """One transaction for up to a hundred orders."""
    new = await asyncio.to_thread(store().first_time, STATISTICS, messages)
    log.info("statistics: %d more orders shipped", len(new))


@worker.every(SWEEP, lease=15)
async def sweeper(tick: aio.Tick) -> None:
    """Once in the fleet, each minute. Another process does it when the lease ends, should this one be killed meanwhile."""
    late = await asyncio.to_thread(store().unshipped, LATE)
    forgotten = await asyncio.to_thread(store().clean)
    log.info("%s, attempt %d: %d orders are late, %d marks deleted", tick.identity, tick.attempt, len(late), forgotten)
