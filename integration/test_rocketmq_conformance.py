"""The conformance kit on RocketMQ: the whole of it on one server that keeps its data, a part of it over TLS."""

from integration.conformance import TRANSPORT, conformance
from integration.rocketmq_harness import RocketHarness
from integration.servers import RocketMQServer

#: The kit makes a thousand queues on one small broker: two topics each, and a file for each queue of a topic.
FEW = "queues=2"

test_rocketmq = conformance(RocketMQServer, harness=RocketHarness, query=FEW)
test_rocketmq_tls = conformance(RocketMQServer, tiers="CP", only=TRANSPORT, query=FEW, tls=True)
