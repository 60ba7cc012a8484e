"""RabbitMQ: the rights that the page names are enough for everything a program does, and stop another prefix's user."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pytest

import narrowboat
from integration.fixtures import Servers
from integration.servers import RabbitMQServer
from narrowboat.errors import AccessDenied, NarrowboatError

PAGE = Path(__file__).parents[1] / "backends/rabbitmq/README.md"
OURS, THEIRS = "shop", "bank"


def rights(prefix: str) -> list[str]:
    """What to configure, to write and to read, as the page says it for the prefix `shop`."""
    block = re.search(r"set_permissions -p / app \\\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert block is not None
    found = re.findall(r"'([^']+)'", block[1])
    assert len(found) == 3
    return [each.replace("shop", prefix) for each in found]


@pytest.fixture(scope="module")
def server() -> Iterator[RabbitMQServer]:
    servers = Servers()
    try:
        made: RabbitMQServer = servers(RabbitMQServer, RabbitMQServer)
        for prefix in (OURS, THEIRS):
            made.ctl("add_user", prefix, prefix)
            made.ctl("set_permissions", "-p", "/", prefix, *rights(prefix))
        yield made
    finally:
        servers.close()


def test_they_are_enough(server: RabbitMQServer) -> None:
    """Everything that a program does."""
    with narrowboat.broker(server.url_for(OURS, OURS), prefix=OURS) as broker:
        orders, prices = broker.queue("orders"), broker.topic("prices")
        with prices.subscription("g").consume() as copies, orders.consume() as messages:
            prices.publish(b"copy", delay=0.1)
            orders.publish(b"x", delay=0.1)
            copy, message = copies.receive(5), messages.receive(5)
            assert copy is not None
            assert message is not None
            copy.reject("no")
            message.nack(delay=0.1)
            again = messages.receive(5)
            assert again is not None
            again.reject("no")
        assert orders.dead_letters().redrive() == 1
        with pytest.raises(narrowboat.RequestTimeout):
            orders.request(b"?", timeout=0.1)
        orders.purge()
        assert orders.delete()
        assert prices.delete()


def test_another_prefix_is_closed_to_them(server: RabbitMQServer) -> None:
    """Neither its queues nor its delayed messages are read, written by way of the ladder, or deleted."""
    with (
        narrowboat.broker(server.url_for(THEIRS, THEIRS), prefix=THEIRS) as bank,
        pika.BlockingConnection(pika.URLParameters(server.url_for(OURS, OURS, "/"))) as connection,
    ):
        payroll = bank.queue(f"payroll{secrets.token_hex(4)}")
        payroll.publish(b"salary", delay=20.0)
        payroll.publish(b"now")
        name = f"{THEIRS}:{payroll.name}"
        ladder = f"narrowboat.delay:{THEIRS}"
        attempts: list[tuple[str, tuple[Any, ...]]] = [
            ("basic_get", (name,)),
            ("queue_purge", (name,)),
            ("queue_delete", (name,)),
            ("exchange_delete", (f"narrowboat.properties:{name}",)),
            ("exchange_delete", (f"{ladder}.due",)),
            ("basic_publish", (f"{ladder}.due", f"0.{name}", b"forged")),
            *(("basic_get", (f"{ladder}.{level}",)) for level in range(8)),
            *(("queue_delete", (f"{ladder}.{level}",)) for level in range(8)),
        ]
        for what, arguments in attempts:
            channel = connection.channel()
            channel.confirm_delivery()
            with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
                getattr(channel, what)(*arguments)
            assert caught.value.reply_code == 403, (what, arguments)
        assert payroll.depth().ready == 1
        with narrowboat.broker(server.url_for(OURS, OURS), prefix=THEIRS) as thief:
            for use in (
                payroll_of(thief, payroll.name).declare,
                lambda: payroll_of(thief, payroll.name).publish(b"x", delay=1),
            ):
                with pytest.raises(NarrowboatError) as refused:
                    use()
                assert isinstance(refused.value, AccessDenied)


def payroll_of(broker: narrowboat.Messaging, name: str) -> narrowboat.Queue[bytes]:
    return broker.queue(name)


def test_what_an_older_version_left_on_its_ladder_is_handed_on(server: RabbitMQServer) -> None:
    """Version 0.1 had one ladder for all prefixes, which the server keeps and serves without us."""
    with (
        narrowboat.broker(server.url, prefix="old") as broker,
        pika.BlockingConnection(pika.URLParameters(server.url)) as connection,
    ):
        orders = broker.queue("orders")
        orders.declare()
        channel = connection.channel()
        arguments = {"x-queue-type": "quorum", "x-message-ttl": 800, "x-dead-letter-exchange": "narrowboat.delay.due"}
        channel.exchange_declare("narrowboat.delay.due", "topic", durable=True)
        channel.queue_declare("narrowboat.delay.left", durable=True, arguments=arguments)
        channel.queue_bind("old:orders", "narrowboat.delay.due", "#.old:orders")
        channel.exchange_declare("narrowboat.delay.left", "topic", durable=True)
        channel.queue_bind("narrowboat.delay.left", "narrowboat.delay.left", "#")
        channel.basic_publish("narrowboat.delay.left", "1.0.0.old:orders", b"left", pika.BasicProperties(message_id="m"))
        with orders.consume() as messages:
            message = messages.receive(10)
            assert message is not None
            assert (message.id, message.body, message.attempt, dict(message.headers)) == ("m", b"left", 1, {})
            message.ack()
