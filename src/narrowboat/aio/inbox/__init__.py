"""The inbox for asyncio: `await inbox.first(connection, message)`. See `narrowboat.inbox`."""

from narrowboat.aio.inbox.inbox import Inbox
from narrowboat.inbox.base import horizon

__all__ = ["Inbox", "horizon"]
