"""What takes waiting messages on to where they go next: published first, then settled, so that a crash repeats and never loses.

One thread for a broker, made at the first message: publishing blocks, and the loop must not.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable

from narrowboat.driver.threads import LazyThread
from narrowboat_kafka.client import SOON, Loop
from narrowboat_kafka.format import levels, records
from narrowboat_kafka.format.records import Record
from narrowboat_kafka.format.stored import Stored
from narrowboat_kafka.member.member import Member
from narrowboat_kafka.member.partition import Partition
from narrowboat_kafka.member.waiting import Forward, Waiting
from narrowboat_kafka.publishing.publisher import Publisher

#: Messages that are published in one go.
_MOST = 500

Work = Callable[[], object]
Job = tuple[Waiting, Partition, Stored, Record, Work]


class Mover:
    """See the module's text. `levels`: how many partitions a retry topic has."""

    def __init__(self, loop: Loop, publisher: Publisher, levels: int) -> None:
        self._loop = loop
        self._publisher = publisher
        self._levels = levels
        self._jobs: queue.SimpleQueue[Job | Work | None] = queue.SimpleQueue()
        self._thread = LazyThread("narrowboat-kafka-mover", self._work, wake=lambda: self._jobs.put(None))

    def to_retry(self, member: Callable[[], Member], make: Work) -> Forward:
        """How a member of a queue or subscription moves on what has to wait for longer. `make`: the retry topic."""

        def forward(part: Partition, record: Stored, remaining: float) -> None:
            mine = member()
            now = time.time()
            level = levels.level(remaining, self._levels)
            claims = part.ledger.claims.get(record.offset)
            attempts = records.attempts(record) + (claims.times if claims else 0)
            changes = {
                records.ATTEMPTS: str(attempts),
                records.DUE: repr(now + remaining),
                records.STEP: repr(now + levels.stay(level)),
            }
            self._put((mine.waiting, part, record, records.republished(record, mine.retry, level, changes), make))

        return forward

    def to_topic(self, member: Callable[[], Member], topic: str) -> Forward:
        """The same for what is published to a topic with a delay: once due, it goes there."""
        wait = self.to_retry(member, _nothing)

        def forward(part: Partition, record: Stored, remaining: float) -> None:
            if remaining > 0:
                wait(part, record, remaining)
            else:
                self._put((member().waiting, part, record, records.republished(record, topic, None, {}), _nothing))

        return forward

    def do(self, work: Work) -> None:
        """Run any other work that must not block the loop."""
        self._put(work)

    def _put(self, job: Job | Work) -> None:
        self._jobs.put(job)
        self._thread.start()

    def _work(self) -> None:
        while True:
            jobs = [self._jobs.get()]
            while len(jobs) < _MOST and not self._jobs.empty():
                jobs.append(self._jobs.get())
            try:
                self._move([job for job in jobs if isinstance(job, tuple)])
                for job in jobs:
                    if callable(job):
                        job()
            except Exception:
                # The broker is being closed, or the server is away. The next owner of the partition moves what was not settled.
                if self._thread.ended:
                    return
                time.sleep(0.1)
            if None in jobs:
                return

    def _move(self, jobs: list[Job]) -> None:
        if not jobs:
            return
        moved = False
        try:
            for make in dict.fromkeys(make for *_, make in jobs):
                make()
            answers = self._publisher.publish([record for *_, record, _ in jobs])
            moved = True
        finally:
            for index, (waiting, part, record, _, _) in enumerate(jobs):
                done = moved and answers[index] is None
                self._loop.call_soon_threadsafe(waiting.moved if done else waiting.not_moved, part, record)

    def close(self, until: float) -> None:
        """End the thread, and wait for it until then at most."""
        self._thread.end(max(SOON, until - time.monotonic()))


def _nothing() -> None:
    """The topic is there: it is where the message was read."""
