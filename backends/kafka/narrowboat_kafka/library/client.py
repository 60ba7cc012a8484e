"""All that one broker object has open, with kafka-python: an I/O thread, the administration, members and producers.

kafka-python gives every consumer an I/O thread. Here all consumers of a broker and the administration share one, on which
`member/` runs as coroutines, so that no thread polls and nobody waits for a poll to end. Producers have a thread of their own
each.
"""

from __future__ import annotations

import weakref
from typing import Any

import kafka.errors as client
from kafka import KafkaAdminClient, KafkaConsumer

from narrowboat.driver.endpoint import Endpoint
from narrowboat_kafka.client import LARGEST, SOON, Ear, Unconnected
from narrowboat_kafka.library.admin import Admin
from narrowboat_kafka.library.connection import PLAIN_MAX, Connections
from narrowboat_kafka.library.group import CooperativeStickyAssignor, Group
from narrowboat_kafka.library.loop import SharedLoop
from narrowboat_kafka.library.met import border, met
from narrowboat_kafka.library.producer import Producer
from narrowboat_kafka.options import Options, Sasl

#: Questions that may be under way on the administration's connection: each caller has its own.
_AT_ONCE = 100
#: Bytes of one partition that are stored together: a thousand small messages in one request, and not in a dozen.
_BATCH = 256 * 1024
#: Milliseconds for which a batch waits for more, until it is sent at once: while many are handed over, few requests are made.
_LINGER = 5
#: Bytes of each partition that are fetched at a time. It bounds what a slow consumer keeps in memory.
_FETCH_MAX = 1024 * 1024
#: How each is called on the wire.
_SASL = {Sasl.PLAIN: "PLAIN", Sasl.SCRAM_256: "SCRAM-SHA-256", Sasl.SCRAM_512: "SCRAM-SHA-512"}


class Client:
    """See the module's text."""

    def __init__(self, endpoint: Endpoint, options: Options, timeout: float) -> None:
        self._options = options
        self._timeout = int(timeout * 1000)
        self._config = _configuration(endpoint, options)
        self._producers: weakref.WeakSet[Producer] = weakref.WeakSet()
        self.loop = SharedLoop()
        self.loop.start()
        connections = Connections(self.loop)
        try:
            self.admin = Admin(
                KafkaAdminClient(
                    kafka_client=connections,
                    max_in_flight_requests_per_connection=_AT_ONCE,
                    receive_message_max_bytes=min(options.max_reply, PLAIN_MAX),
                    **self._config,
                    **self._one_timeout(),
                ),
                connections.made,
                timeout,
            )
        except BaseException as error:
            why = self._unconnected(error) if isinstance(error, client.KafkaError) else error
            self.close(0.0)
            raise why from error

    def _unconnected(self, error: client.KafkaError) -> Unconnected:
        """Why the first connection was not made. The library says that it was not, and keeps the reason to itself."""
        said, failure = met(error), self.loop.failure
        return Unconnected(
            said.code,
            str(said),
            met=met(failure) if failure is not None else None,
            turned_away=self.loop.turned_away,
        )

    def member(self, group: str, ear: Ear) -> Group:
        """A member that has subscribed to nothing yet; its coroutines run on the I/O thread."""
        session, connections = int(self._options.session * 1000), Connections(self.loop)
        assignor = CooperativeStickyAssignor()
        with border():
            consumer = KafkaConsumer(
                group_id=group,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                isolation_level="read_committed",  # what its program took back is for nobody
                partition_assignment_strategy=(assignor,),
                session_timeout_ms=session,
                # A rebalance is heard of with a heartbeat: its steps take about so long.
                heartbeat_interval_ms=max(250, session // 20),
                # So long the others wait for a member that does not come to a rebalance.
                max_poll_interval_ms=max(session, 10_000),
                max_partition_fetch_bytes=_FETCH_MAX,
                fetch_max_bytes=self._options.max_reply // 2,  # a single message may be larger than that
                receive_message_max_bytes=self._options.max_reply,
                metadata_max_age_ms=30_000,
                metrics_enabled=False,
                kafka_client=connections,
                **self._config,
                **self._one_timeout(),
            )
        return Group(group, consumer, assignor, connections.made, ear)

    def producer(self) -> Producer:
        """A producer: idempotent, and nothing counts as stored before all replicas in step have it."""
        limit = self._timeout
        connections = Connections(None)
        try:
            with border():
                made = Producer(
                    acks="all",
                    enable_idempotence=True,
                    kafka_client=connections,
                    max_block_ms=limit,
                    delivery_timeout_ms=limit,
                    request_timeout_ms=max(1, limit * 3 // 4),
                    max_request_size=LARGEST,
                    receive_message_max_bytes=min(self._options.max_reply, PLAIN_MAX),
                    batch_size=_BATCH,
                    linger_ms=min(_LINGER, limit // 4),  # with the time for a request it has to fit into the whole
                    metrics_enabled=False,
                    bootstrap_timeout_ms=limit,
                    **self._config,
                )
        except BaseException:  # what was begun is known to nobody else
            connections.drop()
            raise
        self._producers.add(made)
        return made

    def sharing(self) -> None:
        """The library has no share groups."""

    def _one_timeout(self) -> dict[str, int]:
        return {"request_timeout_ms": max(600, self._timeout), "bootstrap_timeout_ms": self._timeout}

    def close(self, within: float) -> None:
        """End the I/O thread and its connections, within so many seconds if the server does not answer."""
        try:
            if hasattr(self, "admin"):
                self.admin.end()
        finally:
            self.loop.end(within + SOON)

    def disown(self) -> None:
        """In a forked child: threads and connections are the parent's, and nothing here may touch them any more."""
        for producer in list(self._producers):
            producer.disown()


def _configuration(endpoint: Endpoint, options: Options) -> dict[str, Any]:
    """What all clients share."""
    config: dict[str, Any] = {
        "bootstrap_servers": list(map(str, endpoint.hosts)),
        "client_id": "narrowboat",
        "reconnect_backoff_ms": 50,
        "reconnect_backoff_max_ms": 1000,
        "retry_backoff_ms": 50,
    }
    if endpoint.tls:
        config["ssl_context"] = options.context(backend=endpoint.scheme)
    if endpoint.secret is not None:
        config["sasl_mechanism"] = _SASL[options.sasl]
        config["sasl_plain_username"] = endpoint.user
        config["sasl_plain_password"] = endpoint.secret.reveal()
    config["security_protocol"] = ("SASL_" if endpoint.secret is not None else "") + ("SSL" if endpoint.tls else "PLAINTEXT")
    return config
