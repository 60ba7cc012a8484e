"""The conformance kit on RabbitMQ: the whole of it on quorum queues, a part of it on classic ones and through TLS."""

from integration.conformance import TRANSPORT, conformance
from integration.rabbitmq_harness import RabbitHarness, SettledServer
from integration.servers import RabbitMQServer

test_rabbitmq = conformance(RabbitMQServer, SettledServer, harness=RabbitHarness)  # it keeps its data
#: What needs no faults, with priorities.
test_rabbitmq_classic = conformance(RabbitMQServer, tiers="CT", faces=("sync",), query="queue_type=classic&priorities=3")
test_rabbitmq_tls = conformance(RabbitMQServer, tiers="CP", only=TRANSPORT, user="shop", password='p@ss "word/', tls=True)
