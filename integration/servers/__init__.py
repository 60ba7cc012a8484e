"""The servers that the integration tests run against: started on this machine, or in a container, or given by a URL.

    from integration.servers import RedisServer

    with RedisServer() as server:
        print(server.url)

`python -m integration.servers install redis` gets what a machine lacks, `list` says what it has.
"""

from integration.servers.cassandra import CassandraServer
from integration.servers.consul import ConsulServer
from integration.servers.kafka import KafkaServer
from integration.servers.postgresql import PostgreSQLServer
from integration.servers.rabbitmq import RabbitMQServer
from integration.servers.redis import RedisServer
from integration.servers.redis_cluster import RedisCluster
from integration.servers.redis_sentinel import RedisSentinel
from integration.servers.rocketmq import RocketMQServer
from integration.servers.server import Address, Controls, Server, ServerFailed
from integration.servers.zeromq import ZeroMQServer
from integration.servers.zookeeper import ZooKeeperServer
from integration.servers.zookeeper_ensemble import ZooKeeperEnsemble

__all__ = [
    "Address",
    "CassandraServer",
    "ConsulServer",
    "Controls",
    "KafkaServer",
    "PostgreSQLServer",
    "RabbitMQServer",
    "RedisCluster",
    "RedisSentinel",
    "RedisServer",
    "RocketMQServer",
    "Server",
    "ServerFailed",
    "ZeroMQServer",
    "ZooKeeperEnsemble",
    "ZooKeeperServer",
]
