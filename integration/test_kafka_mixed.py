"""A group whose members use different clients of Kafka: kafka-python and librdkafka agree about who has which partition.

It is what happens while a fleet changes from one to the other. Nothing is lost, and nothing that was settled comes again,
whoever joins, leaves or is killed.
"""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import narrowboat
from bounds import upper
from integration.kafka_clients.use import eventually
from integration.servers import KafkaServer

DRIVERS = ("python", "confluent")
#: What happens to the group, which begins with one of each.
_STEPS = (
    *("join python", "join confluent", "kill python", "kill confluent"),
    *("join python", "leave", "join confluent", "leave"),
)


class Worker:
    """One process that consumes."""

    def __init__(self, driver: str, url: str, queue: str, file: Path) -> None:
        self.driver = driver
        self.file = file
        named = url.replace("kafka://", f"kafka+{driver}://")
        argv = [sys.executable, "-m", "integration.kafka_worker", named, queue, str(file)]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE)

    def lines(self) -> list[list[str]]:
        """What it has written so far. A line that was cut off by a kill does not count."""
        text = self.file.read_text() if self.file.exists() else ""
        return [line.split() for line in text.split("\n")[:-1]]

    def is_ready(self) -> bool:
        """Whether it has begun to consume."""
        return ["ready"] in self.lines()

    def done(self) -> list[str]:
        """What it has settled."""
        return [line[1] for line in self.lines() if line[0] == "done"]

    def leave(self) -> None:
        """Let it close, and wait for that."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(upper(30.0)) == 0

    def kill(self) -> None:
        """End it in the midst of whatever it does."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(upper(10.0))
        assert self._process.stdin is not None
        self._process.stdin.close()


@pytest.fixture
def workers(kafka_server: KafkaServer, tmp_path: Path) -> Iterator[tuple[list[Worker], Callable[..., Worker]]]:
    made: list[Worker] = []
    numbers = itertools.count()

    def begin(driver: str, url: str, queue: str) -> Worker:
        worker = Worker(driver, url, queue, tmp_path / f"{next(numbers)}-{driver}")
        made.append(worker)
        return worker

    yield made, begin
    for worker in made:
        if worker._process.poll() is None:
            worker.kill()


def test_a_group_of_both_clients_loses_and_repeats_nothing(
    kafka_server: KafkaServer, workers: tuple[list[Worker], Callable[..., Worker]]
) -> None:
    """Over members that join, leave and are killed, each of either kind, while messages are published."""
    made, begin = workers
    url, queue = f"{kafka_server.url}?session=2&partitions=8&timeout=30", "mixed"
    publishers = [narrowboat.broker(url.replace("kafka://", f"kafka+{driver}://")) for driver in DRIVERS]
    try:
        publishers[0].queue(queue).declare()
        sent = itertools.count()
        count = 0

        def publish(many: int) -> int:
            for publisher in publishers:
                answers = publisher.queue(queue).publish_many([b"%d" % next(sent) for _ in range(many // 2)])
                assert [answer for answer in answers if isinstance(answer, Exception)] == []
            return many // 2 * 2

        alive = [begin(driver, url, queue) for driver in DRIVERS]
        eventually(lambda: all(worker.is_ready() for worker in alive), 60.0)
        dice = random.Random(13)
        for step in _STEPS:
            count += publish(200)
            what, _, driver = step.partition(" ")
            if what == "join":
                alive.append(begin(driver, url, queue))
                eventually(alive[-1].is_ready, 60.0)
            else:
                worker = dice.choice([each for each in alive if not driver or each.driver == driver])
                alive.remove(worker)
                worker.kill() if what == "kill" else worker.leave()
        count += publish(200)

        def handled() -> set[str]:
            return {line[1] for worker in made for line in worker.lines() if line[0] == "got"}

        eventually(lambda: len(handled()) == count, 120.0)
        depth = publishers[0].queue(queue).depth
        eventually(lambda: (depth().ready, depth().in_flight) == (0, 0), 60.0)
        for worker in alive:
            worker.leave()
        settled = Counter(each for worker in made for each in worker.done())
        assert handled() == {str(number) for number in range(count)}
        assert not [each for each, times in settled.items() if times > 1], "settled twice"
        # What is settled in nobody's file was settled by one who was killed before it wrote that down.
        assert count - len(settled) <= 2
        assert {worker.driver for worker in made if worker.done()} == set(DRIVERS)
    finally:
        for publisher in publishers:
            publisher.close()
