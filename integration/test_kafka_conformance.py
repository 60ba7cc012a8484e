"""The conformance kit on Kafka: the whole of it on one server, a part over TLS with a password.

A short session where the end of one is waited for, a longer one where the server or the network fails for longer than that.
"""

from collections.abc import Iterator

import pytest

from integration.conformance import TRANSPORT, conformance
from integration.kafka_harness import KafkaHarness, collect_sockets
from integration.servers import KafkaServer

#: kafka-python leaves the sockets of refused connections to the garbage collector, which says so.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _sockets() -> Iterator[None]:
    yield
    collect_sockets()


SHORT, LONG = "session=2", "session=6"
#: The kit makes a thousand queues on one small server: eight thousand logs, with as many partitions as are the default.
MANY = f"{SHORT}&partitions=2"

test_kafka = conformance(KafkaServer, harness=KafkaHarness, tiers="CTSPH", query=MANY)
test_kafka_faults = conformance(KafkaServer, harness=KafkaHarness, tiers="NR", query=LONG)
test_kafka_secured = conformance(
    KafkaServer, harness=KafkaHarness, tiers="CP", only=TRANSPORT, query=SHORT, users={"shop": 'p@ss "word/'}, tls=True
)
test_kafka_replay = conformance(KafkaServer, harness=KafkaHarness, only=("B14",), query=f"{SHORT}&retention=3600")
