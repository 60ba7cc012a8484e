"""The kit's core and process tiers on every version of a server that the backends are said to work with.

`tox -e integration-versions` runs it; the usual versions are tried with more by `test_<backend>_conformance.py`. Its name keeps
it out of the default run, which it would make twice as long.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from integration import kafka_secured
from integration.conformance import verified
from integration.fixtures import obtain
from integration.kafka_harness import KafkaHarness
from integration.rabbitmq_harness import RabbitHarness
from integration.redis_harness import RedisHarness
from integration.servers import KafkaServer, RabbitMQServer, RedisServer, Server, ZooKeeperServer
from integration.servers.editions import Kafka43, RabbitMQ40, RabbitMQ43, Redis8, Redis62, Valkey9, ZooKeeper38
from integration.zookeeper_harness import ZooKeeperHarness
from narrowboat.conformance import Harness
from narrowboat.conformance.scenario import FACES
from narrowboat_kafka.clients import KINDS
from narrowboat_kafka.options import Sasl

VERSIONS: list[tuple[type[Server], Callable[..., Harness], str]] = [
    (Redis62, RedisHarness, "?durability=aof"),
    (RedisServer, RedisHarness, "?durability=aof"),
    (Redis8, RedisHarness, "?durability=aof"),
    (Valkey9, RedisHarness, "?durability=aof"),
    (RabbitMQServer, RabbitHarness, ""),
    (RabbitMQ40, RabbitHarness, ""),
    (RabbitMQ43, RabbitHarness, ""),
    (KafkaServer, KafkaHarness, "?session=2"),
    (Kafka43, KafkaHarness, "?session=2"),
    (ZooKeeper38, ZooKeeperHarness, "?session_ttl=3&tick=0.5"),
    (ZooKeeperServer, ZooKeeperHarness, "?session_ttl=3&tick=0.5"),
]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize(("kind", "harness", "query"), [pytest.param(*each, id=each[0].__name__) for each in VERSIONS])
def test_version(kind: type[Server], harness: Callable[..., Harness], query: str, face: str) -> None:
    """What needs no time, and processes that are killed, stopped and forked."""
    with obtain(kind) as server:
        verified(
            harness(server.url + query, server=server), server, faces=[face], tiers="CP", set_up=f"version_{kind.__name__}"
        )


# kafka-python leaves the sockets of refused connections to the garbage collector, which says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", [Kafka43])
def test_passwords(kind: type[KafkaServer]) -> None:
    """Each mechanism of Kafka, over TLS, by each client."""
    with obtain(kind, **kafka_secured.OPTIONS) as server:
        assert isinstance(server, KafkaServer)
        kafka_secured.let_in(server)
        for client in KINDS:
            for how in Sasl:
                kafka_secured.check(server, client, how)
