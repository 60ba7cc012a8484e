"""One fixture a server, started once a module; and `servers` for any other set-up.

def test_it(redis_server): narrowboat.locks(redis_server.url)
def test_other(servers): servers(RedisServer, RedisCluster, tls=True).url
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from integration.fixtures import Servers
from integration.servers import ConsulServer, KafkaServer, RabbitMQServer, RedisServer, RocketMQServer, ZooKeeperServer

#: what client libraries say about themselves, or about their own libraries
_NOISE = ("BlockingConnection is deprecated", "(read|open)_text is deprecated")


#: Files whose tests take minutes, the longest first. What is begun last keeps one process busy when the others are done.
_LONG = (
    "test_kafka_conformance",
    "test_redis_conformance",
    "test_kafka_confluent",
    "test_servers",
    "test_secrets",
    "test_zookeeper_conformance",
    "test_rabbitmq_conformance",
    "test_consul_conformance",
    "test_kafka_clients",
    "test_tls",
    "test_kafka",
)


def pytest_configure(config: pytest.Config) -> None:
    for text in _NOISE:
        config.addinivalue_line("filterwarnings", f"ignore:{text}:DeprecationWarning")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _LONG.index(item.path.stem) if item.path.stem in _LONG else len(_LONG))


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    made = Servers()
    yield made
    made.close()


@pytest.fixture(scope="module")
def redis_server(servers: Servers) -> RedisServer:
    server: RedisServer = servers(RedisServer)
    return server


@pytest.fixture(scope="module")
def zookeeper_server(servers: Servers) -> ZooKeeperServer:
    server: ZooKeeperServer = servers(ZooKeeperServer)
    return server


@pytest.fixture(scope="module")
def consul_server(servers: Servers) -> ConsulServer:
    server: ConsulServer = servers(ConsulServer)
    return server


@pytest.fixture(scope="module")
def rabbitmq_server(servers: Servers) -> RabbitMQServer:
    server: RabbitMQServer = servers(RabbitMQServer)
    return server


@pytest.fixture(scope="module")
def kafka_server(servers: Servers) -> KafkaServer:
    server: KafkaServer = servers(KafkaServer)
    return server


@pytest.fixture(scope="module")
def rocketmq_server(servers: Servers) -> RocketMQServer:
    server: RocketMQServer = servers(RocketMQServer)
    return server
