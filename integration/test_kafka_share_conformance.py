"""The conformance kit on Kafka's share groups, which settle one by one what classic groups commit by offset.

The server is set up for short locks and heartbeats. As it comes, each lease in a scenario is twelve seconds, and each new queue
takes five until its first message.
"""

from integration.conformance import conformance
from integration.kafka_harness import QUICK, SHARE, KafkaHarness
from integration.servers.editions import Kafka43

test_kafka_share = conformance(Kafka43, harness=KafkaHarness, tiers="CTSPH", query=SHARE, driver="confluent", config=QUICK)
