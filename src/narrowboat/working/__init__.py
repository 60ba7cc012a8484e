"""Workers: what a process does that handles messages. `Worker` is the face; the rest are the values that it takes and gives.

    worker = narrowboat.Worker()

    @worker.queue("orders", codec=JSON, concurrency=8, retry=Retry(first=1, factor=4, most=600, drop=(KeyError,)), timeout=30)
    def ship(message): ...

    worker.run()

The asyncio twin is in `narrowboat.aio`. Loaded when `narrowboat.Worker` is first asked for.
"""

from narrowboat.working.breaker import Breaker
from narrowboat.working.handlers import Handling, Skip
from narrowboat.working.health import Health, SourceHealth
from narrowboat.working.retry import Retry
from narrowboat.working.schedule import ScheduleOptions, Tick
from narrowboat.working.worker import Worker

__all__ = ["Breaker", "Handling", "Health", "Retry", "ScheduleOptions", "Skip", "SourceHealth", "Tick", "Worker"]
