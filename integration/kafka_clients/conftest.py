"""Each test here runs once with each client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from integration.fixtures import Servers
from integration.kafka_clients.ear import Ear
from integration.kafka_clients.use import connected, new_topic
from integration.servers import KafkaServer
from narrowboat_kafka.clients import KINDS


@pytest.fixture(autouse=True)
def _sockets(kafka_sockets: None) -> None:
    """kafka-python leaves the sockets of refused connections to the garbage collector, which says so."""


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(kind: str, kafka_server: KafkaServer) -> Iterator[Any]:
    with connected(kind, kafka_server) as made:
        yield made


@pytest.fixture
def topic(client: Any) -> str:
    return new_topic(client)


@pytest.fixture
def join() -> Iterator[Callable[..., Ear]]:
    made: list[Ear] = []

    def begin(*arguments: Any) -> Ear:
        made.append(Ear(*arguments))
        return made[-1]

    yield begin
    for ear in made:
        if not ear.ending:
            ear.close()


@pytest.fixture
def fragile(servers: Servers) -> Iterator[KafkaServer]:
    """A server that may be frozen and killed; it runs again afterwards."""
    server: KafkaServer = servers(KafkaServer)
    yield server
    server.close()
