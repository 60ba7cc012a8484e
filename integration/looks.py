"""A look at each server from outside, with its client library and nothing of Narrowboat: put something there, find it again."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from integration.servers import (
    ConsulServer,
    KafkaServer,
    RabbitMQServer,
    RedisServer,
    Server,
    ZooKeeperServer,
)


@dataclass(frozen=True)
class Look:
    """What tests of the servers themselves need to know of each."""

    kind: type[Server]
    put: Callable[[Any], None]  #: something that must be there after the server was killed and started again
    there: Callable[[Any], bool]  #: whether it is
    secured: dict[str, Any]  #: the options of one with a password and TLS

    all: ClassVar[list[Look]] = []


def _put_redis(server: RedisServer) -> None:
    with server.client() as client:
        client.set("kept", "yes")


def _there_redis(server: RedisServer) -> bool:
    with server.client() as client:
        return bool(client.get("kept") == "yes")


def _zookeeper(server: ZooKeeperServer) -> Any:
    from kazoo.client import KazooClient

    secure = {"use_ssl": True, "ca": str(server.certificates.ca)} if server.certificates else {}
    client = KazooClient(hosts=f"127.0.0.1:{server.port}", timeout=5, **secure)
    client.start(timeout=20)
    return client


def _put_zookeeper(server: ZooKeeperServer) -> None:
    client = _zookeeper(server)
    try:
        client.create("/kept", b"yes")
    finally:
        client.stop()
        client.close()


def _there_zookeeper(server: ZooKeeperServer) -> bool:
    client = _zookeeper(server)
    try:
        return bool(client.get("/kept")[0] == b"yes")
    finally:
        client.stop()
        client.close()


def _put_consul(server: ConsulServer) -> None:
    server.request("PUT", "/v1/kv/kept", "yes")


def _there_consul(server: ConsulServer) -> bool:
    return bool(server.request("GET", "/v1/kv/kept?raw&consistent") == "yes")


def _rabbitmq(server: RabbitMQServer) -> Any:
    import pika

    secure = None
    if server.certificates is not None:
        context = ssl.create_default_context(cafile=str(server.certificates.ca))
        secure = pika.SSLOptions(context, "127.0.0.1")
    return pika.BlockingConnection(
        pika.ConnectionParameters(
            host="127.0.0.1",
            port=server.port,
            credentials=pika.PlainCredentials(server.user, server.password),
            ssl_options=secure,
            socket_timeout=10,
            blocked_connection_timeout=10,
        )
    )


def _put_rabbitmq(server: RabbitMQServer) -> None:
    import pika

    with _rabbitmq(server) as connection:
        channel = connection.channel()
        channel.queue_declare("kept", durable=True, arguments={"x-queue-type": "quorum"})
        channel.confirm_delivery()
        channel.basic_publish("", "kept", b"yes", pika.BasicProperties(delivery_mode=2), mandatory=True)


def _there_rabbitmq(server: RabbitMQServer) -> bool:
    with _rabbitmq(server) as connection:
        # Not acknowledged: it stays. It is waited for, because it is back only some time after who had it last has gone.
        for _, _, body in connection.channel().consume("kept", inactivity_timeout=20):
            return bool(body == b"yes")
    return False


def _kafka(server: KafkaServer) -> dict[str, Any]:
    found: dict[str, Any] = {"bootstrap_servers": f"127.0.0.1:{server.port}"}
    protocol = ("SASL_" if server.users else "") + ("SSL" if server.certificates else "PLAINTEXT")
    found["security_protocol"] = protocol
    if server.certificates is not None:
        found["ssl_cafile"] = str(server.certificates.ca)
    for name, password in server.users.items():
        found |= {"sasl_mechanism": "PLAIN", "sasl_plain_username": name, "sasl_plain_password": password}
    return found


def _put_kafka(server: KafkaServer) -> None:
    from kafka import KafkaProducer

    producer = KafkaProducer(acks="all", **_kafka(server))
    try:
        producer.send("kept", b"yes").get(timeout=20)
    finally:
        producer.close(timeout=5)


def _there_kafka(server: KafkaServer) -> bool:
    from kafka import KafkaConsumer

    consumer = KafkaConsumer("kept", auto_offset_reset="earliest", consumer_timeout_ms=20_000, **_kafka(server))
    try:
        return any(record.value == b"yes" for record in consumer)  # ends at the first that it finds
    finally:
        consumer.close()


Look.all += [
    Look(RedisServer, _put_redis, _there_redis, {"password": 'p@ss "word/', "tls": True}),
    Look(ZooKeeperServer, _put_zookeeper, _there_zookeeper, {"tls": True}),
    Look(ConsulServer, _put_consul, _there_consul, {"token": "7d1c2a2e-0000-4000-8000-000000000001", "tls": True}),
    Look(RabbitMQServer, _put_rabbitmq, _there_rabbitmq, {"user": "shop", "password": "p@ss word/", "tls": True}),
    Look(KafkaServer, _put_kafka, _there_kafka, {"users": {"shop": 'p@ss "word\\'}, "tls": True}),
]
