"""A client of the library, which keeps its connections to the servers, over a loop and sockets of ours.

Used on the loop's thread. It knows no message, no topic and no URL.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kafka import KafkaConsumer
from kafka.net.manager import KafkaConnectionManager

from narrowboat_kafka.library.loop import Loop, SharedLoop
from narrowboat_kafka.library.wire import Wire, connected

#: Bytes of an answer to the administration or a producer, where more may come to a consumer. Each becomes objects, not bytes.
PLAIN_MAX = 8 * 1024 * 1024
#: The library's class of what it keeps connections in, by the option that is ours to give.
_NetClient: Any = KafkaConsumer.DEFAULT_CONFIG["kafka_client"]


class _Manager(KafkaConnectionManager):  # type: ignore[misc]  # the base class has no annotations
    """It makes no topics by asking for them: the library's own setting for that does not reach its requests."""

    def __init__(self, loop: Loop, config: Mapping[str, Any]) -> None:
        super().__init__(loop, **config)
        self._loop = loop
        self._context, self._options = config.get("ssl_context"), config.get("socket_options", ())
        self.cluster.config["allow_auto_create_topics"] = False

    async def _build_transport(self, node: Any, timeout_at: float | None = None) -> Wire:
        """Version 3.0 makes its connections by this; 3.1 asks the loop for them."""
        place = node.host, node.port
        return await connected(self._loop, *place, context=self._context, options=self._options, until=timeout_at)


class NetClient(_NetClient):  # type: ignore[misc]  # the base class has no annotations
    """See the module's text. `net`: its loop; without one, it has its own."""

    def __init__(self, net: Any = None, **config: Any) -> None:
        self.loop: Loop = net or Loop()
        self.manager = _Manager(self.loop, config)
        super().__init__(net=self.loop, manager=self.manager)

    def close(self, node_id: Any = None) -> None:
        """Close its connections, and its loop; where it shares that with others, on the loop's thread."""
        if node_id is not None or not isinstance(self.loop, SharedLoop):
            self.manager.close(node_id)
        elif not self.loop.closed:
            self.loop.run(self.manager.close)
        if node_id is None:
            self.loop.close()


class Connections:
    """What the library is told to make a client with: over a loop that it shares with others, or one of its own."""

    made: NetClient  #: the client, once there is one

    def __init__(self, loop: SharedLoop | None) -> None:
        self._loop = loop

    def __call__(self, **config: Any) -> NetClient:
        """Make it."""
        self.made = NetClient(**{**config, "net": self._loop})
        return self.made

    def drop(self) -> None:
        """Close what was made for something of the library's that could not be made itself."""
        if hasattr(self, "made"):
            self.made.close()
