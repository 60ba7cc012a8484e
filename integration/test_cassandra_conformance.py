"""The conformance kit on Cassandra: on one node that syncs its commit log, and with TLS and users."""

from integration.cassandra_harness import CassandraHarness
from integration.conformance import TRANSPORT, conformance
from integration.servers import CassandraServer

DURABLE = "durability=disk"

#: The core, process and network tiers: the page says what of the others is not proven yet.
test_cassandra = conformance(CassandraServer, harness=CassandraHarness, tiers="CPN", query=DURABLE)
test_cassandra_tls = conformance(CassandraServer, tiers="C", only=TRANSPORT, auth=True, tls=True)
