"""The conformance kit on RabbitMQ: the whole of it on quorum queues, a part of it on classic ones and through TLS."""

from __future__ import annotations

import pytest

from integration.conformance import TRANSPORT, allowed, verified
from integration.fixtures import obtain
from integration.rabbitmq_harness import RabbitHarness, SettledServer
from integration.servers import RabbitMQServer
from narrowboat.conformance.scenario import FACES


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("face", FACES)
def test_rabbitmq(face: str) -> None:
    """Everything, on one server that keeps its data."""
    with obtain(RabbitMQServer, SettledServer) as server:
        verified(RabbitHarness(server.url, server=server), server, faces=[face], tiers=allowed(""))


@pytest.mark.timeout(900)
def test_rabbitmq_classic() -> None:
    """What needs no faults, on classic queues, with priorities."""
    with obtain(RabbitMQServer) as server:
        verified(f"{server.url}?queue_type=classic&priorities=3", server, tiers=allowed("CT"), faces=["sync"])


@pytest.mark.timeout(900)
def test_rabbitmq_tls() -> None:
    """What a transport can break, through TLS and with a password that has to be escaped."""
    with obtain(RabbitMQServer, user="shop", password='p@ss "word/', tls=True) as server:
        verified(server.url, server, tiers="CP", only=TRANSPORT)
