"""The conformance kit on Kafka by librdkafka: what a client can break, and with every tier all of it.

The whole of it on kafka-python is in `test_kafka_conformance.py`, with what the lengths of the sessions are about.
"""

from integration.conformance import CLIENT, TRANSPORT, conformance
from integration.kafka_harness import KafkaHarness
from integration.servers import KafkaServer

SHORT, LONG = "session=2&partitions=2", "session=6"

test_kafka_confluent = conformance(
    KafkaServer, harness=KafkaHarness, tiers="CTSPH", only=CLIENT, query=SHORT, driver="confluent"
)
test_kafka_confluent_faults = conformance(KafkaServer, harness=KafkaHarness, tiers="NR", query=LONG, driver="confluent")
test_kafka_confluent_secured = conformance(
    KafkaServer,
    harness=KafkaHarness,
    tiers="CP",
    only=TRANSPORT,
    query=SHORT,
    users={"shop": 'p@ss "word/'},
    tls=True,
    driver="confluent",
)
