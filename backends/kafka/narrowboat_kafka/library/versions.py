"""Where the versions of kafka-python that serve here differ: each such thing is found in this file, and nowhere else.

The released one is 3.0. Version 3.1, the main branch now, takes a loop by its option `net` and lets that make connections; 3.0
takes a client that has the loop (`kafka_client`), and makes connections by a method of its manager.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kafka import KafkaConsumer
from kafka.future import Future

__all__ = ["ASKS_THE_LOOP", "Future", "NetBackend", "NetClient", "connect_with"]

try:
    from kafka.net.backend import NetBackend
except ImportError:

    class NetBackend:  # type: ignore[no-redef]
        """The loop is asked for what 3.1 asks for, and is of no class."""

    #: Whether connections are asked of the loop.
    ASKS_THE_LOOP = False
else:
    ASKS_THE_LOOP = True

#: What a consumer makes its connections with, where it is told nothing else.
NetClient: Any = KafkaConsumer.DEFAULT_CONFIG["kafka_client"]


def connect_with(manager: Any, connected: Callable[..., Any]) -> None:
    """Let the manager of a client make its connections by that, where it does not ask the loop: `connected(node, until)`."""
    if not ASKS_THE_LOOP:

        async def build(node: Any, timeout_at: float | None = None) -> Any:
            return await connected(node, timeout_at)

        manager._build_transport = build
