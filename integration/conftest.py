"""One fixture a server, started once a module; and `servers` for any other set-up.

def test_it(redis_server): narrowboat.locks(redis_server.url)
def test_other(servers): servers(RedisServer, RedisCluster, tls=True).url
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from integration import sharing
from integration.fixtures import Servers
from integration.servers import ConsulServer, KafkaServer, RabbitMQServer, RedisServer, ZooKeeperServer

#: what client libraries say about themselves, or about their own libraries
_NOISE = ("BlockingConnection is deprecated", "(read|open)_text is deprecated")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "xdist_group(name): for one process of several; also where there is but one")
    for text in _NOISE:
        config.addinivalue_line("filterwarnings", f"ignore:{text}:DeprecationWarning")


@pytest.hookimpl(tryfirst=True)  # before the marks are read
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    sharing.arrange(items)


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
