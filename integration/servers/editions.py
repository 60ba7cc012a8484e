"""The servers in other versions than the usual ones, each a class that tests ask for by name.

    from integration.servers.editions import RabbitMQ43

`python -m integration.servers install rabbitmq@4.3` gets one. What the versions do differently is the drivers' business.
"""

from __future__ import annotations

from integration.servers.kafka import KafkaServer
from integration.servers.rabbitmq import RabbitMQServer
from integration.servers.redis import RedisServer
from integration.servers.zookeeper import ZooKeeperServer


class Redis62(RedisServer):
    """Redis 6.2, without TLS."""

    edition = "redis@6.2"
    image_name = "redis:6.2"


class Redis8(RedisServer):
    """Redis 8.0."""

    edition = "redis@8"
    image_name = "redis:8.0"


class Valkey9(RedisServer):
    """Valkey 9."""

    edition = "valkey@9"
    image_name = "valkey/valkey:9.0"
    program = "valkey-server"
    scheme = "valkey"


class RabbitMQ40(RabbitMQServer):
    """RabbitMQ 4.0."""

    edition = "rabbitmq@4.0"
    image_name = "rabbitmq:4.0"


class RabbitMQ43(RabbitMQServer):
    """RabbitMQ 4.3."""

    edition = "rabbitmq@4.3"
    image_name = "rabbitmq:4.3"


class Kafka43(KafkaServer):
    """Kafka 4.3."""

    edition = "kafka@4.3"
    image_name = "apache/kafka:4.3.0"


class ZooKeeper38(ZooKeeperServer):
    """ZooKeeper 3.8."""

    edition = "zookeeper@3.8"
    image_name = "zookeeper:3.8"
