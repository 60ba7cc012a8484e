"""What all calls of one driver share: an I/O thread, two connections on it, and what was declared there.

One connection publishes and one does everything else, because a server that raises an alarm stops reading from those that
publish: acks must not wait behind them.
"""

from __future__ import annotations

from narrowboat.contract import Context
from narrowboat.driver.endpoint import Endpoint
from narrowboat.errors import Closed
from narrowboat_rabbitmq.connection.channel import Channel
from narrowboat_rabbitmq.connection.link import Link
from narrowboat_rabbitmq.connection.loop import Loop
from narrowboat_rabbitmq.connection.publisher import Publisher
from narrowboat_rabbitmq.errors import Operation
from narrowboat_rabbitmq.options import SCHEME, Options, QueueType
from narrowboat_rabbitmq.sources import Sources

#: Seconds for which a server that was silent before, or until now, is waited for when a connection is closed.
_HURRY = 0.1


class Client:
    """See the module's text. From any thread."""

    def __init__(self, endpoint: Endpoint, options: Options, context: Context) -> None:
        self.endpoint = endpoint
        self.clock = context.clock
        self.timeout = context.timeout
        self.counted = options.queue_type is QueueType.QUORUM  #: queues count what is given back to them
        self.loop = Loop("narrowboat-rabbitmq-io", options.heartbeat, context.clock)
        self.link = Link(endpoint, options, self.loop, context.timeout, "narrowboat")
        self.sources = Sources(self.link, options)
        self.publisher = Publisher(Link(endpoint, options, self.loop, context.timeout, "narrowboat publishing"))
        self._closed = False

    def deadline(self) -> float:
        """One operation timeout from now; raises `Closed` after `close`."""
        if self._closed:
            raise Closed("this RabbitMQ broker was closed; open it again", backend=SCHEME)
        return self.clock() + self.timeout

    def make_inbox(self, name: str, deadline: float) -> None:
        """Declare a queue for replies, which belongs to the connection. Idempotent on it."""
        operation = Operation("making an inbox", deadline)
        channel = Channel.open(self.link, operation)
        try:
            channel.call([("queue_declare", {"queue": name, "exclusive": True, "auto_delete": False})], operation)
        finally:
            channel.close(0.0)

    def close(self, deadline: float) -> None:
        """Close both connections, and end the I/O thread."""
        self._closed = True
        links = (self.publisher.link, self.link)
        for link, done in [(link, link.begin_close()) for link in links]:
            # Who was waited for in vain a moment ago is not waited for again.
            silent = any(each.silent for each in links)
            link.finish_close(done, _HURRY if silent else max(_HURRY, deadline - self.clock()))
        self.loop.close(max(0.5, deadline - self.clock()))
