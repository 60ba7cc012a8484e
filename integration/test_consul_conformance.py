"""The conformance kit on Consul: the whole of it on one agent that keeps its data, a part through TLS with access control."""

import pytest

from integration.conformance import TRANSPORT, conformance
from integration.consul_harness import ConsulHarness
from integration.servers import ConsulServer

#: An interrupt that strikes between the making of a socket and its first name leaves it to the collector, which complains.
#: The kit interrupts the sync face at each of these points; that nothing leaks otherwise it counts itself (L44).
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

#: An interrupt at every point of an acquire is thousands of acquires: a fifth of them.
test_consul = conformance(ConsulServer, harness=ConsulHarness, size=0.2)
test_consul_tls = conformance(ConsulServer, tiers="CP", only=TRANSPORT, tls=True, token="0b8f1b60-54a7-4a31-9b2a-5a51f6c1f6d2")
