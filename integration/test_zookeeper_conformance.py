"""The conformance kit on ZooKeeper: the whole of it on one server, a part on an ensemble and with TLS."""

from integration.conformance import conformance
from integration.servers import ZooKeeperEnsemble, ZooKeeperServer

test_zookeeper = conformance(ZooKeeperServer)
test_zookeeper_tls = conformance(ZooKeeperServer, tiers="C", tls=True)
test_zookeeper_ensemble = conformance(ZooKeeperServer, ZooKeeperEnsemble, tiers="C")
