"""Kafka over TLS with a password, by each mechanism and each client; `versions.py` does the same on another version."""

from __future__ import annotations

from typing import Any

import pytest

from integration import kafka_secured
from integration.fixtures import Servers
from integration.kafka_harness import LEAVES_SOCKETS
from integration.servers import KafkaServer
from narrowboat_kafka.clients import KINDS
from narrowboat_kafka.options import Sasl

pytestmark = LEAVES_SOCKETS


@pytest.fixture(scope="module")
def secured(servers: Servers) -> Any:
    server = servers(KafkaServer, **kafka_secured.OPTIONS)
    kafka_secured.let_in(server)
    return server


@pytest.mark.parametrize("client", list(KINDS))
@pytest.mark.parametrize("how", list(Sasl))
def test_a_password_opens_by_its_own_mechanism(secured: KafkaServer, client: str, how: Sasl) -> None:
    """A queue works with the password of that mechanism, and nobody is let in with another."""
    kafka_secured.check(secured, client, how)
