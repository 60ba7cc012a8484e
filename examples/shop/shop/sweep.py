"""Publish again what was sold and not shipped: `python -m shop.sweep`, from cron or a schedule.

A web process may be killed between the sale and the publish. The table `sold` is what counts. The worker ships an order once,
so one that is in the queue already does no harm.
"""

from __future__ import annotations

import narrowboat
from shop.orders import ORDER
from shop.store import store


def sweep(broker: narrowboat.Messaging) -> int:
    """How many were published again."""
    orders = store().unshipped()
    outcomes = broker.queue("orders", codec=ORDER).publish_many([narrowboat.Outbound(order, id=order.id) for order in orders])
    return sum(isinstance(outcome, narrowboat.Receipt) for outcome in outcomes)


if __name__ == "__main__":
    with narrowboat.broker() as broker:
        print(sweep(broker), "orders published again")
