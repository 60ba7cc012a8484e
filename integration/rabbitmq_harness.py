"""What the conformance kit can do to a RabbitMQ server beyond its connections: alarms, rights, deletions.

Everything here is done with rabbitmqctl, as an operator would; a queue is deleted with pika alone, and what other programs
publish goes through pika's connection.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from functools import partial
from typing import cast
from urllib.parse import quote

import pika

from integration.amqp_fields import Written, deep, value
from integration.servers import RabbitMQServer
from narrowboat.conformance import Harness
from narrowboat.dsn import Url
from narrowboat_rabbitmq.protocol.content import Content

#: Seconds after which a server has written down that a quorum queue lives on it.
WRITTEN = 1.5


def strange_messages() -> dict[str, Content]:
    """What another program may publish, each by what is strange about it."""
    headers: dict[str, list[tuple[bytes, bytes]]] = {
        "a time that no calendar has": [(b"ts", b"T" + (1772000000000).to_bytes(8))],
        "a name that is no UTF-8": [(b"caf\xe9", value("S", b"x"))],
        "a value that is no UTF-8": [(b"a", value("S", b"\xff\xfe"))],
        "a table in a table, 2,000 times": [(b"a", deep("F", 2000))],
        "an array in an array, 2,000 times": [(b"a", deep("A", 2000))],
        "a fraction": [(b"a", b"d" + struct.pack(">d", -1e308)), (b"b", b"f" + struct.pack(">f", 0.1))],
        "headers of ours that are no JSON": [(b"narrowboat-headers", value("S", b"[" * 100_000))],
        "headers of ours that are no text": [(b"narrowboat-headers", value("S", b'{"a": {"b": 1}}'))],
        "attempts of ours that are none": [(b"narrowboat-attempts", value("S", b"9" * 5000))],
        "a negative count of attempts": [(b"narrowboat-attempts", value("S", b"-1000000"))],
        "an end of ours that is none": [(b"narrowboat-expires", value("S", b"nan"))],
        "a count of the server's own that is none": [(b"x-delivery-count", value("S", b"inf"))],
        "headers that fill a frame": [(b"a", value("S", b"x" * 60_000)), (b"b", value("S", b"y" * 70_000))],
        "copies for itself": [(b"CC", value("A", value("S", b"nobody")))],
    }
    strange = {label: Content(headers=each, message_id=f"s{number}") for number, (label, each) in enumerate(headers.items())}
    strange["no id, and nothing else"] = Content()
    strange["an id that is no UTF-8"] = Content(
        message_id="\udcff\udcfe", correlation_id="\udcff", content_type="\udcff", type="\udcff"
    )
    strange["a reply to an address that is none"] = Content(message_id="r", reply_to="", correlation_id="\0\x1b[31m")
    strange["the last of all times"] = Content(message_id="t", timestamp=2**64 - 1, priority=255)
    return strange


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

    def plant_entries(self, namespace: str, name: str) -> list[tuple[str, Callable[[], object]]]:
        queue = f"{quote(namespace)}:{name}"
        return [(label, partial(self._publish, queue, content)) for label, content in strange_messages().items()]

    def _publish(self, queue: str, content: Content) -> None:
        with pika.BlockingConnection(pika.URLParameters(self.url.partition("?")[0])) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.basic_publish("", queue, b"strange", Written(content.encode()), mandatory=True)

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
