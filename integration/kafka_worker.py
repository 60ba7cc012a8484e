"""A process that consumes a queue and writes down what it got and settled: `python -m integration.kafka_worker URL QUEUE FILE`.

A line `got ID ATTEMPT` before a message is settled, `done ID` after; each is in the file before the next step. It ends when
its standard input does.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import narrowboat
from narrowboat.errors import StaleDelivery, Unavailable


def main(url: str, name: str, file: str) -> None:
    ended = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    lines = os.open(Path(file), os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    with narrowboat.broker(url) as broker, broker.queue(name).consume() as messages:
        os.write(lines, b"ready\n")
        while not ended.is_set():
            try:
                message = messages.receive(0.2)
            except Unavailable:  # it joins, or the others are slow to agree
                continue
            if message is None:
                continue
            os.write(lines, b"got %s %d\n" % (message.body, message.attempt))
            try:
                message.ack()
            except StaleDelivery:
                os.write(lines, b"stale %s\n" % message.body)
            else:
                os.write(lines, b"done %s\n" % message.body)


if __name__ == "__main__":
    main(*sys.argv[1:])
