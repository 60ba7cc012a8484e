"""What the conformance kit can do to a Kafka server: delete topics, take rights away, stand between it and its clients.

Everything here is done with kafka-python's administration alone, as an operator would.
"""

from __future__ import annotations

import gc
import warnings
from typing import cast

from integration.servers import KafkaServer
from narrowboat.conformance import Harness
from narrowboat.conformance.network import Network
from narrowboat.conformance.proxy import Proxy

with warnings.catch_warnings():
    # kafka-python reads its schemas in a way that Python 3.11 calls deprecated; not ours to mend, and an error in tests.
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka import KafkaAdminClient


def collect_sockets() -> None:
    """Let the garbage collector close the sockets of refused connections, which kafka-python leaves to it, unnoticed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


class KafkaHarness(Harness):
    """For one server that the harness may do anything to."""

    _last: Network | None = None  #: there is one place for a proxy: who asks twice gets the same one

    @property
    def _kafka(self) -> KafkaServer:
        return cast(KafkaServer, self.server)

    def _admin(self) -> KafkaAdminClient:
        return KafkaAdminClient(bootstrap_servers="{}:{}".format(*self._kafka.internal))

    def _delete(self, prefix: str) -> None:
        admin = self._admin()
        try:
            gone = [topic for topic in admin.list_topics() if topic.startswith(prefix)]
            if gone:
                admin.delete_topics(gone)
        finally:
            admin.close()

    def cleanup(self, namespace: str) -> None:
        # Each topic is files on the server; without this a whole run leaves thousands.
        if self._kafka.alive:
            self._delete(f"{namespace}--")

    def delete(self, half: str, namespace: str, name: str) -> None:
        self._delete(f"{namespace}--{name}")

    def network(self, url: str) -> Network:
        # Clients go where the broker says it is: the proxy has to stand at the address that one of its listeners announces.
        if self._last is not None and self._last.proxies[0]._thread.is_alive():
            self._last.heal()
            return self._last
        behind, front = self._kafka.proxied
        proxy = Proxy(behind.host, behind.port)
        proxy.refuse()
        proxy._port = front.port
        proxy.heal()
        self._last = Network(url, proxies=[proxy])
        return self._last
