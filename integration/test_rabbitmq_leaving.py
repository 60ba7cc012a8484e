"""RabbitMQ: a consumer that is left while another thread begins to receive from it."""

from __future__ import annotations

import secrets
import threading

import narrowboat
from integration.servers import RabbitMQServer


def test_a_consumer_that_is_left_in_the_middle_of_its_first_receive_holds_nothing(rabbitmq_server: RabbitMQServer) -> None:
    """What the server pushed to it is there for others at once, and not only when the broker is closed."""
    bodies = {b"%d" % number for number in range(10)}
    with narrowboat.broker(rabbitmq_server.url, prefix=f"t{secrets.token_hex(4)}") as broker:
        queue = broker.queue("orders", max_deliveries=0)
        queue.publish_many(bodies)
        for _ in range(10):
            messages = queue.consume()
            receiver = threading.Thread(target=list, args=(messages,))
            receiver.start()
            messages.close()
            receiver.join(10)
            assert not receiver.is_alive()
        with queue.consume(idle=3) as messages:
            found = {message.body for message in messages}
        assert found == bodies
