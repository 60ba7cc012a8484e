"""The conformance kit on ZooKeeper: on one server, on an ensemble of three, and with TLS.

A short session where the end of one is waited for, a long one where the network or the server fails for longer than that.
"""

from integration.conformance import TRANSPORT, conformance
from integration.servers import ZooKeeperEnsemble, ZooKeeperServer
from integration.zookeeper_harness import ZooKeeperHarness

SHORT, LONG = "session_ttl=3&tick=0.5", "session_ttl=12&tick=0.5"

test_zookeeper = conformance(ZooKeeperServer, harness=ZooKeeperHarness, tiers="CTSPH", query=SHORT)
test_zookeeper_faults = conformance(ZooKeeperServer, harness=ZooKeeperHarness, tiers="NR", query=LONG)
test_zookeeper_tls = conformance(ZooKeeperServer, harness=ZooKeeperHarness, tiers="CP", only=TRANSPORT, query=SHORT, tls=True)
test_zookeeper_ensemble = conformance(
    ZooKeeperServer, ZooKeeperEnsemble, harness=ZooKeeperHarness, tiers="CTP", only=TRANSPORT, query=SHORT
)
