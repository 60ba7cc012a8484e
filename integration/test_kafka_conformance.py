"""The conformance kit on Kafka: the whole of it on one server, a part over TLS with a password.

A short session where the end of one is waited for, a longer one where the server or the network fails for longer than that.
"""

from integration.conformance import TRANSPORT, conformance
from integration.kafka_harness import LEAVES_SOCKETS, KafkaHarness
from integration.servers import KafkaServer

pytestmark = LEAVES_SOCKETS


SHORT, LONG = "session=2", "session=6"
#: The kit makes a thousand queues on one small server: eight thousand logs, with as many partitions as are the default.
MANY = f"{SHORT}&partitions=2"

test_kafka = conformance(KafkaServer, harness=KafkaHarness, tiers="CTSPH", query=MANY)
test_kafka_faults = conformance(KafkaServer, harness=KafkaHarness, tiers="NR", query=LONG)
test_kafka_secured = conformance(
    KafkaServer, harness=KafkaHarness, tiers="CP", only=TRANSPORT, query=SHORT, users={"shop": 'p@ss "word/'}, tls=True
)
test_kafka_replay = conformance(KafkaServer, harness=KafkaHarness, only=("B14",), query=f"{SHORT}&retention=3600")
