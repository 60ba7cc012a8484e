"""One fixture a server, which the tests of a module share; and `servers` for any other set-up.

def test_it(redis_server): narrowboat.locks(redis_server.url)
def test_other(servers): servers(RedisServer, RedisCluster, tls=True).url
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from integration import kept, parts
from integration.fixtures import Servers
from integration.servers import (
    CassandraServer,
    ConsulServer,
    KafkaServer,
    PostgreSQLServer,
    RabbitMQServer,
    RedisServer,
    RocketMQServer,
    Server,
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


def pytest_sessionfinish() -> None:
    kept.close()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return parts.scheduler(config, log)


@pytest.fixture
def kafka_sockets() -> Iterator[None]:
    """See `kafka_harness.LEAVES_SOCKETS`."""
    yield
    from integration.kafka_harness import collect_sockets  # its client library is imported by those who need it

    collect_sockets()


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    made = Servers()
    yield made
    made.close()


def _one(server: type[Server]) -> Any:
    """The fixture of a server that the tests of a module share."""

    @pytest.fixture(scope="module")
    def one() -> Iterator[Any]:
        with kept.lent(server) as lent:
            yield lent

    return one


redis_server = _one(RedisServer)
postgresql_server = _one(PostgreSQLServer)
zeromq_server = _one(ZeroMQServer)
zookeeper_server = _one(ZooKeeperServer)
consul_server = _one(ConsulServer)
cassandra_server = _one(CassandraServer)
rabbitmq_server = _one(RabbitMQServer)
kafka_server = _one(KafkaServer)
rocketmq_server = _one(RocketMQServer)
