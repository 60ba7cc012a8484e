"""The conformance kit on RabbitMQ: the whole of it on quorum queues, a part of it on classic ones and through TLS."""

from __future__ import annotations

import pytest

from integration.conformance import TRANSPORT, allowed
from integration.fixtures import obtain
from integration.rabbitmq_harness import RabbitHarness, SettledServer
from integration.servers import RabbitMQServer
from narrowboat.conformance import verify
from narrowboat.conformance.scenario import FACES


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("face", FACES)
def test_rabbitmq(face: str) -> None:
    """Everything, on one server that keeps its data."""
    with obtain(RabbitMQServer, SettledServer) as server:
        report = verify(RabbitHarness(server.url, server=server), faces=[face], tiers=allowed(""))
    assert report.ok, "\n\n".join(f"{row.id} {row.scenario}: {row.why}" for row in report.broken)


@pytest.mark.timeout(900)
def test_rabbitmq_classic() -> None:
    """What needs no faults, on classic queues, with priorities."""
    with obtain(RabbitMQServer) as server:
        report = verify(f"{server.url}?queue_type=classic&priorities=3", tiers=allowed("CT"), faces=["sync"])
    assert report.ok, "\n\n".join(f"{row.id} {row.scenario}: {row.why}" for row in report.broken)


@pytest.mark.timeout(900)
def test_rabbitmq_tls() -> None:
    """What a transport can break, through TLS and with a password that has to be escaped."""
    with obtain(RabbitMQServer, user="shop", password='p@ss "word/', tls=True) as server:
        report = verify(server.url, tiers="CP", only=TRANSPORT)
    assert report.ok, "\n\n".join(f"{row.id} {row.scenario}: {row.why}" for row in report.broken)
