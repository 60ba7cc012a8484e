"""One fixture a server, started once a module; and `servers` for any other set-up.

def test_it(redis_server): narrowboat.locks(redis_server.url)
def test_other(servers): servers(RedisServer, RedisCluster, tls=True).url
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from integration import parts
from integration.fixtures import Servers
from integration.servers import (
    CassandraServer,
    ConsulServer,
    KafkaServer,
    PostgreSQLServer,
    RabbitMQServer,
    RedisServer,
    RocketMQServer,
    ZeroMQServer,
    ZooKeeperServer,
)

#: what client libraries say about themselves, or about their own libraries
_NOISE = ("BlockingConnection is deprecated", "(read|open)_text is deprecated")


def pytest_configure(config: pytest.Config) -> None:
    for text in _NOISE:
        config.addinivalue_line("filterwarnings", f"ignore:{text}:DeprecationWarning")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    parts.arrange(items)


def pytest_collection_finish() -> None:
    """What is there now stays to the end, so the garbage collector, which many tests call, need not look at it each time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return parts.scheduler(config, log)


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
def cassandra_server(servers: Servers) -> CassandraServer:
    server: CassandraServer = servers(CassandraServer)
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
def postgresql_server(servers: Servers) -> PostgreSQLServer:
    server: PostgreSQLServer = servers(PostgreSQLServer)
    return server


@pytest.fixture(scope="module")
def zeromq_server(servers: Servers) -> ZeroMQServer:
    server: ZeroMQServer = servers(ZeroMQServer)
    return server


@pytest.fixture(scope="module")
def rocketmq_server(servers: Servers) -> RocketMQServer:
    server: RocketMQServer = servers(RocketMQServer)
    return server
