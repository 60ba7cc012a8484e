"""What the conformance kit can do to a RabbitMQ server beyond its connections: alarms, rights, deletions.

Everything here is done with rabbitmqctl, as an operator would; a queue is deleted with pika alone.
"""

from __future__ import annotations

import time
from typing import cast
from urllib.parse import quote

import pika

from integration.servers import RabbitMQServer
from narrowboat.conformance import Harness
from narrowboat.dsn import Url

#: Seconds after which a server has written down that a quorum queue lives on it.
WRITTEN = 1.5


class SettledServer(RabbitMQServer):
    """A server that is not killed while it has yet to write down which quorum queues live on it.

    3.10 does so within a second of the declaration, and offers nothing that could be waited for. Killed before, it comes
    back with the queue's name and without its messages, confirmed or not; that is on the backend's page.
    """

    def kill(self) -> None:
        if self.alive:
            time.sleep(WRITTEN)
        super().kill()


class RabbitHarness(Harness):
    """For one server that the harness may do anything to."""

    @property
    def _rabbit(self) -> RabbitMQServer:
        return cast(RabbitMQServer, self.server)

    @property
    def _user(self) -> str:
        return Url.parse(self.url).username or "guest"

    def delete(self, half: str, namespace: str, name: str) -> None:
        with pika.BlockingConnection(pika.URLParameters(self.url.partition("?")[0])) as connection:
            connection.channel().queue_delete(f"{quote(namespace)}:{name}")

    def fill(self) -> None:
        self._rabbit.ctl("set_vm_memory_high_watermark", "absolute", "1MB")

    def drain(self) -> None:
        self._rabbit.ctl("set_vm_memory_high_watermark", "0.4")

    def revoke(self) -> None:
        # A channel remembers what it was allowed for as long as it lives: so its connection ends as well.
        self._rabbit.ctl("clear_permissions", "-p", "/", self._user)
        self._rabbit.ctl("close_all_user_connections", self._user, "rights were taken away")

    def permit(self) -> None:
        self._rabbit.ctl("set_permissions", "-p", "/", self._user, ".*", ".*", ".*")
