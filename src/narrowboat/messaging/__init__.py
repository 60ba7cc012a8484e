"""Messages in the user's hands: queues and topics for a URL, and what comes out of them.

    broker = narrowboat.broker("sqlite:///shop.db")
    orders = broker.queue("orders")
    orders.publish(b"...")
    with orders.consume() as messages:
        for message in messages:
            message.ack()

The asyncio twins are in `narrowboat.aio`; the loops behind both are in `narrowboat._messages`.
"""

from typing import TYPE_CHECKING

from narrowboat._messages.delivery import Dead
from narrowboat._messages.envelope import Outbound
from narrowboat._messages.requests import Reply
from narrowboat.contract.messages import Depth, Receipt
from narrowboat.messaging.consumer import Messages
from narrowboat.messaging.dead_letters import DeadLetters
from narrowboat.messaging.message import Batch, Message
from narrowboat.messaging.messaging import Messaging, broker
from narrowboat.messaging.queue import Queue
from narrowboat.messaging.topic import Subscription, Topic

if TYPE_CHECKING:
    from narrowboat._messages.around import Publishing

__all__ = [
    "Batch",
    "Dead",
    "DeadLetters",
    "Depth",
    "Message",
    "Messages",
    "Messaging",
    "Outbound",
    "Publishing",
    "Queue",
    "Receipt",
    "Reply",
    "Subscription",
    "Topic",
    "broker",
]


def __getattr__(name: str) -> object:
    if name == "Publishing":  # for programs that put something around each publish
        from narrowboat._messages import around

        return around.Publishing
    raise AttributeError(f"module 'narrowboat.messaging' has no attribute {name!r}")
