"""The conformance kit on PostgreSQL, locks and messages: the whole of it on a plain server, a part through TLS."""

from integration.conformance import TRANSPORT, conformance
from integration.postgresql_harness import PostgreSQLHarness
from integration.servers import PostgreSQLServer

test_postgresql = conformance(PostgreSQLServer, harness=PostgreSQLHarness)
test_postgresql_tls = conformance(
    PostgreSQLServer, harness=PostgreSQLHarness, tiers="CP", only=TRANSPORT, password="p@ss \"word/\\'", tls=True
)
