"""A Kafka server that asks for passwords over TLS, by each mechanism, and what `test_kafka_secured.py` does on it."""

from __future__ import annotations

import warnings
from typing import Any
from urllib.parse import quote

import pytest

import narrowboat
from integration.servers import KafkaServer
from narrowboat.errors import AccessDenied
from narrowboat_kafka.options import Sasl

with warnings.catch_warnings():
    # kafka-python reads its schemas in a way that Python 3.11 calls deprecated; not ours to mend, and an error in tests.
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka import KafkaAdminClient
    from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

SECRET = 'p@ss "word/'
_SCRAM = {Sasl.SCRAM_256: ScramMechanism.SCRAM_SHA_256, Sasl.SCRAM_512: ScramMechanism.SCRAM_SHA_512}
_MODULE = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
#: Of a server with users and TLS. By PLAIN there is another password, so that no mechanism stands in for another one.
OPTIONS: dict[str, Any] = {
    "users": {"shop": f"plain {SECRET}"},
    "tls": True,
    "config": {
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        **{f"listener.name.{name}.{each.value}.sasl.jaas.config": _MODULE for name in ("client", "proxied") for each in _SCRAM},
    },
}


def let_in(server: KafkaServer) -> None:
    """Make the user known by SCRAM, with another password by each mechanism."""
    admin = KafkaAdminClient(bootstrap_servers="{}:{}".format(*server.internal))
    try:
        for how, mechanism in _SCRAM.items():
            wanted = UserScramCredentialUpsertion("shop", mechanism, f"{how.value} {SECRET}")
            assert admin.alter_user_scram_credentials([wanted]) == {"shop": None}
    finally:
        admin.close()


def check(server: KafkaServer, client: str, how: Sasl) -> None:
    """A queue works with the password of that mechanism, and nobody is let in with another."""
    assert server.certificates is not None
    rest = f"?ca={quote(str(server.certificates.ca))}&sasl={how.value}&session=2&partitions=1"
    place = f"127.0.0.1:{server.port}/{rest}"
    source = f"orders-{client}-{how.value}"
    with narrowboat.broker(f"kafkas+{client}://shop:{quote(f'{how.value} {SECRET}', safe='')}@{place}", timeout=20) as broker:
        queue = broker.queue(source, max_deliveries=2)
        with queue.consume(prefetch=10) as messages:
            queue.publish_many([b"1", b"2"])
            first, second = messages.receive(20), messages.receive(20)
            assert first is not None and second is not None
            first.ack()
            second.reject("no")
        assert queue.dead_letters().redrive() == 1
        assert queue.depth().ready == 1
    with (
        pytest.raises(AccessDenied) as caught,
        narrowboat.broker(f"kafkas+{client}://shop:wrong-{how.value}@{place}") as broker,
    ):
        broker.queue(source).publish(b"x")
    assert "wrong-" not in str(caught.value)
