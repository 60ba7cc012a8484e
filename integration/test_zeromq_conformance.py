"""The conformance kit on `narrowboat serve`: SQLite's promises, kept through the wire."""

from integration.conformance import TRANSPORT, conformance
from integration.servers import ZeroMQServer

test_zeromq = conformance(ZeroMQServer)
test_zeromq_keys = conformance(ZeroMQServer, tiers="CP", only=TRANSPORT, secure=True)
