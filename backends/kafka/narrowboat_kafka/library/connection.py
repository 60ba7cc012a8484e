"""A client of the library, which keeps its connections to the servers, over a loop and sockets of ours.

Used on the loop's thread. It knows no message, no topic and no URL.
"""

from __future__ import annotations

from typing import Any

from narrowboat_kafka.library import versions
from narrowboat_kafka.library.loop import Loop, SharedLoop
from narrowboat_kafka.library.wire import Wire, connected

#: Bytes of an answer to the administration or a producer, where more may come to a consumer. Each becomes objects, not bytes.
PLAIN_MAX = 8 * 1024 * 1024


class NetClient(versions.NetClient):  # type: ignore[misc]  # the base class has no annotations
    """See the module's text. `net`: its loop; without one, it has its own.

    It makes no topics by asking for them: the library's own setting for that does not reach its requests.
    """

    def __init__(self, net: Any = None, **config: Any) -> None:
        self.loop: Loop = net or Loop()
        super().__init__(net=self.loop, **config)
        self.cluster.config["allow_auto_create_topics"] = False
        context, options = config.get("ssl_context"), config.get("socket_options", ())

        async def connect(node: Any, until: float | None) -> Wire:
            return await connected(self.loop, node.host, node.port, context=context, options=options, until=until)

        versions.connect_with(self._manager, connect)

    def close(self, node_id: Any = None) -> None:
        """Close its connections, where it shares its loop with others: on its thread."""
        if isinstance(self.loop, SharedLoop) and node_id is None:
            if not self.loop.closed:
                self.loop.run(self._close)
        else:
            super().close(node_id)

    async def _close(self) -> None:
        self._manager.close()


class Connections:
    """What a consumer or the administration is told to make its client with: one over a loop that it shares with others."""

    made: NetClient  #: the client, once there is one

    def __init__(self, loop: SharedLoop) -> None:
        self._loop = loop

    def __call__(self, **config: Any) -> NetClient:
        """Make it."""
        self.made = NetClient(**{**config, "net": self._loop})
        return self.made
