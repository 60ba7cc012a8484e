"""How the tests of a client open it, make topics, and store records."""

from __future__ import annotations

import importlib
import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from integration.servers import KafkaServer
from narrowboat.conformance.watch import watch
from narrowboat.dsn import Url
from narrowboat_kafka.clients import KINDS
from narrowboat_kafka.format.records import Record
from narrowboat_kafka.options import Options, endpoint

#: An upper bound, extended by what the machine stood still for.
upper = watch().extended

#: Seconds of one operation, and what may come on top on a busy machine.
TIMEOUT, SLACK = 5.0, 3.0

_numbers = itertools.count()


def connect(kind: str, server: KafkaServer, *, url: str | None = None, timeout: float = TIMEOUT, **options: Any) -> Any:
    wanted = Url.parse(url or server.url)
    if server.certificates is not None and wanted.scheme == "kafkas":
        options.setdefault("ca", str(server.certificates.ca))
    read = Options(session=2.0, **options)
    return importlib.import_module(KINDS[kind].module).Client(endpoint(wanted, read), read, timeout)


@contextmanager
def connected(kind: str, server: KafkaServer, **options: Any) -> Iterator[Any]:
    client = connect(kind, server, **options)
    try:
        yield client
    finally:
        client.close(TIMEOUT)


def new_topic(client: Any, partitions: int = 2) -> str:
    name = f"client{os.getpid()}-{next(_numbers)}"
    client.admin.create(name, partitions, -1, {})
    eventually(lambda: [each.ready for each in client.admin.describe([name])] == [True])
    return name


def eventually(condition: Callable[[], object], within: float = 10.0) -> None:
    begun = time.monotonic()
    while not condition():
        took = time.monotonic() - begun
        assert took < within or took < upper(within), "it did not come true in time"
        time.sleep(0.01)


def record(topic: str, partition: int | None = 0, value: bytes | None = b"v", **more: Any) -> Record:
    fields = {"key": None, "headers": [("narrowboat-id", b"an-id")], "timestamp": int(time.time() * 1000), **more}
    return Record(topic, partition, value=value, **fields)


def store(client: Any, *records: Record) -> None:
    producer = client.producer()
    assert producer.publish(records, time.monotonic() + 2 * TIMEOUT) == [None] * len(records)
    producer.end(TIMEOUT)
