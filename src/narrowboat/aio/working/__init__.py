"""Workers for asyncio: the twin of `narrowboat.working`, with which it shares all values."""

from narrowboat.aio.working.worker import Worker
from narrowboat.working import Breaker, Handling, Health, Retry, ScheduleOptions, Skip, SourceHealth, Tick

__all__ = ["Breaker", "Handling", "Health", "Retry", "ScheduleOptions", "Skip", "SourceHealth", "Tick", "Worker"]
