"""Messages for asyncio: the same nouns as in `narrowboat.messaging`, with `async with`, `await` and `async for`.

    broker = narrowboat.aio.broker("sqlite:///shop.db")
    orders = broker.queue("orders")
    await orders.publish(b"...")
    async with orders.consume() as messages:
        async for message in messages:
            await message.ack()

The loops behind both faces are in `narrowboat._messages`.
"""

from narrowboat._messages.delivery import Dead
from narrowboat._messages.envelope import Outbound
from narrowboat._messages.requests import Reply
from narrowboat.aio.messaging.consumer import Messages
from narrowboat.aio.messaging.dead_letters import DeadLetters
from narrowboat.aio.messaging.message import Batch, Message
from narrowboat.aio.messaging.messaging import Messaging, broker
from narrowboat.aio.messaging.queue import Queue
from narrowboat.aio.messaging.topic import Subscription, Topic
from narrowboat.contract.messages import Depth, Receipt

__all__ = [
    "Batch",
    "Dead",
    "DeadLetters",
    "Depth",
    "Message",
    "Messages",
    "Messaging",
    "Outbound",
    "Queue",
    "Receipt",
    "Reply",
    "Subscription",
    "Topic",
    "broker",
]
