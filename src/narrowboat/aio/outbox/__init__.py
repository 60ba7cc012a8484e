"""The outbox for asyncio: `await outbox.publish(connection, ...)`. See `narrowboat.outbox`."""

from narrowboat.aio.outbox.outbox import Outbox

__all__ = ["Outbox"]
