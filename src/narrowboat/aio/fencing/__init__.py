"""Fences for asyncio: the twin of `narrowboat.fencing`. The HTTP side is there alone, for both."""

from narrowboat.aio.fencing.file import FileFence
from narrowboat.aio.fencing.redis import RedisFence
from narrowboat.aio.fencing.table import TableFence

__all__ = ["FileFence", "RedisFence", "TableFence"]
