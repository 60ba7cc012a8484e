"""What the conformance kit can do to a Kafka server: delete topics, take rights away, stand between it and its clients.

Everything here is done with kafka-python's administration alone, as an operator would.
"""

from __future__ import annotations

import gc
import random
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest

from integration.servers import KafkaServer
from narrowboat.conformance import Harness
from narrowboat.conformance.faults.network import Network
from narrowboat.conformance.faults.proxy import Proxy

with warnings.catch_warnings():
    # kafka-python reads its schemas in a way that Python 3.11 calls deprecated; not ours to mend, and an error in tests.
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka import KafkaAdminClient, KafkaProducer

#: A server's settings for share groups that are quick: locks of a second, and a new group's messages at once. And their URL's.
QUICK = {
    "group.share.min.record.lock.duration.ms": "1000",
    "group.share.min.heartbeat.interval.ms": "200",
    "group.share.heartbeat.interval.ms": "200",
}
SHARE = "groups=share&lock_min=1&session=2"


def strange_records() -> dict[str, dict[str, Any]]:
    """Records as another program may publish them, by what is strange about each. None asks to be dropped."""
    found: dict[str, dict[str, Any]] = {
        "no value": {"value": None, "key": b"k"},
        "nothing but a value": {"value": b"x"},
        "a key that is no text": {"value": b"x", "key": b"\xff\xfe"},
        "a time of 1970": {"value": b"x", "timestamp_ms": 0},
        "headers that are no text": {"value": b"x", "headers": [("h\0", b"\xff"), ("", b""), ("h\0", b"\x1b[31m")]},
        "an id that is no text": {"value": b"x", "headers": [("narrowboat-id", b"\xff\n\x1b[31m")]},
        "an empty id": {"value": b"x", "headers": [("narrowboat-id", b"")]},
        "ten thousand headers": {"value": b"x", "headers": [(f"h{number}", b"") for number in range(10_000)]},
        "a time that is never": {"value": b"x", "headers": [("narrowboat-due", b"1e18"), ("narrowboat-step", b"1e18")]},
        "a death of its own": {
            "value": b"x",
            "headers": [("narrowboat-dead-attempts", b"9" * 5000), ("narrowboat-dead-origin", b"payroll")],
        },
        "a megabyte": {"value": random.Random(1).randbytes(1_000_000)},
    }
    for text in (b"-1000000", b"-0.9", b"1e308", b"inf", b"nan", b"", b"9" * 5000, b"\xff"):
        headers = [(f"narrowboat-{name}", text) for name in ("attempts", "priority", "due", "step")]
        found[f"{text[:10]!r} for every number"] = {"value": b"x", "headers": headers}
    for codec in ("gzip", "snappy", "lz4", "zstd"):
        found[f"packed with {codec}"] = {"value": b"x" * 1000, "codec": codec}
    return found


def collect_sockets() -> None:
    """Let the garbage collector close the sockets of refused connections, which kafka-python leaves to it, unnoticed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


#: The `pytestmark` of a module: kafka-python leaves the sockets of refused connections to the garbage collector, which says so.
LEAVES_SOCKETS = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("kafka_sockets"),
]


class KafkaHarness(Harness):
    """For one server that the harness may do anything to."""

    _last: Network | None = None  #: there is one place for a proxy: who asks twice gets the same one

    @property
    def _kafka(self) -> KafkaServer:
        return cast(KafkaServer, self.server)

    def _admin(self) -> KafkaAdminClient:
        return KafkaAdminClient(bootstrap_servers="{}:{}".format(*self._kafka.internal))

    def _delete(self, prefix: str) -> None:
        admin = self._admin()
        try:
            gone = [topic for topic in admin.list_topics() if topic.startswith(prefix)]
            if gone:
                admin.delete_topics(gone)
        finally:
            admin.close()

    def cleanup(self, namespace: str) -> None:
        # Each topic is files on the server; without this a whole run leaves thousands.
        if self._kafka.alive:
            self._delete(f"{namespace}--")

    def delete(self, half: str, namespace: str, name: str) -> None:
        self._delete(f"{namespace}--{name}")

    def plant_entries(self, namespace: str, name: str) -> list[tuple[str, Callable[[], object]]]:
        topic = f"{namespace}--{name}"
        return [(label, partial(self._produce, topic, record)) for label, record in strange_records().items()]

    def _produce(self, topic: str, record: dict[str, Any]) -> None:
        codec = record.pop("codec", None)
        producer = KafkaProducer(bootstrap_servers="{}:{}".format(*self._kafka.internal), compression_type=codec)
        try:
            producer.send(topic, **record).get(20)
        finally:
            producer.close()

    def network(self, url: str) -> Network:
        # Clients go where the broker says it is: the proxy has to stand at the address that one of its listeners announces.
        if self._last is not None and self._last.proxies[0]._thread.is_alive():
            self._last.heal()
            return self._last
        behind, front = self._kafka.proxied
        proxy = Proxy(behind.host, behind.port)
        proxy.refuse()
        proxy._port = front.port
        proxy.heal()
        self._last = Network(url, proxies=[proxy])
        return self._last
