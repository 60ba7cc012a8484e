"""The conformance kit on Cassandra: on one node that syncs its commit log, and with TLS and users."""

from integration.cassandra_harness import CassandraHarness
from integration.conformance import TRANSPORT, conformance
from integration.servers import CassandraServer

DURABLE = "durability=disk"

test_cassandra = conformance(CassandraServer, harness=CassandraHarness, query=DURABLE)
test_cassandra_tls = conformance(CassandraServer, tiers="CP", only=TRANSPORT, auth=True, tls=True)
