"""What one broker object has open: an I/O thread with the connections of everything that reads, and the administration.

kafka-python gives every consumer an I/O thread. Here all consumers of a broker and the administration share one, on which
`member/` runs as coroutines, so that no thread polls and nobody waits for a poll to end. Producers have a thread of their own
each; when one is made, and when it ends, is up to `publisher.py`.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Collection
from typing import Any

from kafka import KafkaConsumer
from kafka.errors import KafkaTimeoutError

from narrowboat.contract import Context
from narrowboat.driver.endpoint import Endpoint
from narrowboat.errors import AccessDenied, Closed
from narrowboat_kafka.errors import translate, unconnected
from narrowboat_kafka.library.admin import Admin
from narrowboat_kafka.library.connection import PLAIN_MAX, Client, SharedClient
from narrowboat_kafka.library.group import CooperativeStickyAssignor, Group
from narrowboat_kafka.library.loop import Loop
from narrowboat_kafka.library.producer import Producer
from narrowboat_kafka.options import SCHEME, Options, Sasl

#: Questions that may be under way on the administration's connection: each caller has its own.
_AT_ONCE = 100
#: Bytes of the largest message that is published again, to wait or as a dead letter: what goes with it makes it larger than
#: it was, and other programs' are larger than ours. The topics for these are made to take it.
LARGEST = 8 * 1024 * 1024
#: Bytes of one partition that are stored together: a thousand small messages in one request, and not in a dozen.
_BATCH = 256 * 1024
#: Milliseconds for which a batch waits for more, until it is sent at once: while many are handed over, few requests are made.
_LINGER = 5
#: Seconds that what should take no time may take on a busy machine.
SOON = 0.1
#: Bytes of each partition that are fetched at a time. It bounds what a slow consumer keeps in memory.
_FETCH_MAX = 1024 * 1024
#: How each is called on the wire.
_SASL = {Sasl.PLAIN: "PLAIN", Sasl.SCRAM_256: "SCRAM-SHA-256", Sasl.SCRAM_512: "SCRAM-SHA-512"}

#: What is open in this process, so that a forked child can disown it.
_open: weakref.WeakSet[Connections] = weakref.WeakSet()


class Connections:
    """See the module's text. Consumers and producers are made when they are asked for, the administration at once."""

    def __init__(self, endpoint: Endpoint, options: Options, context: Context) -> None:
        self.timeout = context.timeout
        self.place = ",".join(map(str, endpoint.hosts))
        self._endpoint = endpoint
        self._options = options
        self._config = _configuration(endpoint, options)
        self._closed = False
        self._first: Client | None = None  #: the administration's own
        self._producers: weakref.WeakSet[Producer] = weakref.WeakSet()
        try:
            self.net = Loop(client_id=self._config["client_id"])
        except OSError as error:
            raise translate(error, f"connecting to {self.place}") from error
        _open.add(self)
        try:
            self.admin = Admin(
                kafka_client=self._client,
                max_in_flight_requests_per_connection=_AT_ONCE,
                receive_message_max_bytes=min(options.max_reply, PLAIN_MAX),
                **self._config,
                **self._one_timeout(),
            )
        except BaseException as error:
            refused = self._refused(error) if isinstance(error, Exception) else error
            self.close(0.0)
            raise refused from error

    def _refused(self, error: Exception) -> Exception:
        """Why the first connection was not made. The library says that it was not, and keeps the reason to itself."""
        if self._endpoint.secret is not None and self._first is not None and self._first.turned_away():
            return AccessDenied(
                f"connecting to {self.place}: the server closed the connection when user and password were shown to it. "
                "Check them, and that ?sasl= is a mechanism that it offers",
                backend=SCHEME,
            )
        met = self._first.failure if self._first is not None else None
        return unconnected(error, met, f"connecting to {self.place}", secure=self._endpoint.tls)

    def _client(self, **config: Any) -> Client:
        made = SharedClient(net=self.net, **config)
        if self._first is None:
            self._first = made
        return made

    def check_open(self) -> None:
        """Raise `Closed` after `close`."""
        if self._closed:
            raise self.closed()

    def closed(self) -> Closed:
        """What a call is told after the end."""
        return Closed(f"this broker on {self.place} was closed; open it again", backend=SCHEME)

    # -- the I/O thread -------------------------------------------------------------------------------------------

    def call(self, coroutine: Callable[..., Any], *arguments: object) -> Any:
        """Run `coroutine` on the I/O thread, and wait for what it returns."""
        self.check_open()
        return self.net.run(coroutine, *arguments)

    def call_until(self, until: float, coroutine: Callable[..., Any], *arguments: object) -> Any:
        """The same, and wait until then at most. It goes on by itself."""
        future, done = self.net.call_soon_with_future(coroutine, *arguments), threading.Event()
        future.add_both(lambda _: done.set())
        if not done.wait(max(0.0, until - time.monotonic())):
            raise KafkaTimeoutError("the server did not answer in time")
        if future.exception is not None:
            raise future.exception
        return future.value

    async def offsets(self, partitions: Collection[Any], which: int) -> dict[Any, int]:
        """The earliest or latest offset of each, as far as it may be read. On the I/O thread.

        Over the administration's connection: on a consumer's own it would stand behind a fetch that waits for messages.
        """
        return await self.admin.offsets(partitions, which, self.timeout) if partitions else {}

    # -- what is made on demand -----------------------------------------------------------------------------------

    def group(self, name: str) -> Group:
        """A member of a group that has joined nothing yet; its coroutines run on the I/O thread."""
        session = int(self._options.session * 1000)
        consumer = KafkaConsumer(
            group_id=name,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",  # what its program took back is for nobody
            partition_assignment_strategy=(CooperativeStickyAssignor,),
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
            kafka_client=self._client,
            **self._config,
            **self._one_timeout(),
        )
        return Group(name, consumer)

    def producer(self) -> Producer:
        """A producer: idempotent, and nothing counts as stored before all replicas in step have it."""
        self.check_open()
        limit = int(self.timeout * 1000)
        made = Producer(
            acks="all",
            enable_idempotence=True,
            kafka_client=Client,
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
        self._producers.add(made)
        return made

    def _one_timeout(self) -> dict[str, int]:
        limit = int(self.timeout * 1000)
        return {"request_timeout_ms": max(600, limit), "bootstrap_timeout_ms": limit}

    # -- the end --------------------------------------------------------------------------------------------------

    def shut(self) -> None:
        """Begin nothing new; what is under way goes on, and is ended by `close`."""
        self._closed = True

    def close(self, within: float) -> None:
        """End the I/O thread and its connections, within so many seconds if the server does not answer."""
        self.shut()
        try:
            if hasattr(self, "admin"):
                self.admin.end()
        finally:
            self.net.stop(timeout_ms=1000 * (within + SOON))
            self.net.close()

    def disown(self) -> None:
        """In a forked child: threads and connections are the parent's, and nothing here may touch them any more."""
        self._closed = True
        for producer in list(self._producers):
            producer.disown()


def _disown_all() -> None:
    for each in list(_open):
        each.disown()


os.register_at_fork(after_in_child=_disown_all)


def _configuration(endpoint: Endpoint, options: Options) -> dict[str, Any]:
    """What all clients share."""
    config: dict[str, Any] = {
        "bootstrap_servers": list(map(str, endpoint.hosts)),
        "client_id": "narrowboat",
        "proxy_url": "narrowboat://direct",
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
