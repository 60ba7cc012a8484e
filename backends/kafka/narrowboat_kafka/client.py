"""Connections: one I/O thread for everything that reads, one for what the producer writes. The library's peculiarities.

kafka-python gives every consumer an I/O thread. Here all consumers of a broker and the administration share one, on which
`member.py` runs as coroutines: the library's own coroutines are called there directly, so no thread polls and nobody waits
for a poll to end. This file, `member.py`, `reader.py`, `commits.py` and `fetched.py` use names that the library does not
promise; it is pinned for that.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import KafkaError
from kafka.net.compat import KafkaNetClient
from kafka.net.inet import KafkaNetSocket
from kafka.net.selector import NetworkSelector
from kafka.partitioner import DefaultPartitioner

from narrowboat.contract import Context
from narrowboat.dsn import Url
from narrowboat.errors import AccessDenied, Closed
from narrowboat_kafka.errors import translate
from narrowboat_kafka.fetched import Fetched
from narrowboat_kafka.options import PORT, SCHEME, SECURE, Options, Sasl

T = TypeVar("T")

#: The earliest and the latest offset, as the server is asked for them.
EARLIEST, LATEST = -2, -1
#: Questions that may be under way on the administration's connection: each caller has its own.
_AT_ONCE = 100
#: Bytes that one request to store may have: the server's own limit.
_REQUEST_MAX = 1_048_576
#: Bytes of one partition that are stored together: a thousand small messages in one request, and not in a dozen.
_BATCH = 256 * 1024
#: Milliseconds for which a batch waits for more, until `at_once`: while many are handed over, few requests are made.
_LINGER = 5
#: Bytes of each partition that are fetched at a time. It bounds what a slow consumer keeps in memory.
_FETCH_MAX = 1024 * 1024

#: What is open in this process, so that a forked child can disown it.
_open: weakref.WeakSet[Clients] = weakref.WeakSet()


class _Hidden(str):
    """A password that the library's debugging output does not show."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def _no_password(record: logging.LogRecord) -> bool:
    """The library's debugging output shows what it sends, the password in it."""
    return "SaslAuthenticate" not in record.getMessage()


for _name in ("kafka.net.connection", "kafka.protocol.parser"):
    logging.getLogger(_name).addFilter(_no_password)


class _Sockets(KafkaNetSocket):  # type: ignore[misc]  # the base class has no annotations
    """Sockets that are closed when they do not connect: the library leaves those to the garbage collector.

    It finds this class by the scheme of `proxy_url`, its way to say how sockets are made; nothing is proxied.
    """

    SCHEMES = ("narrowboat",)

    def socket(self, *arguments: Any, **named: Any) -> Any:
        self._made = super().socket(*arguments, **named)
        return self._made

    async def connect(self, *arguments: Any, **named: Any) -> Any:
        try:
            return await super().connect(*arguments, **named)
        except BaseException:  # a cancellation included: the client forgets the socket that it has made
            made = getattr(self, "_made", None)
            if made is not None:
                made.close()
            raise


class _Client(KafkaNetClient):  # type: ignore[misc]  # the base class has no annotations
    """A client that makes no topics by asking for them: the library's own setting for that does not reach its requests."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.cluster.config["allow_auto_create_topics"] = False
        self.last: Any = None  #: the connection that was begun last
        connect = self._manager.get_connection

        def kept(*arguments: Any, **named: Any) -> Any:
            self.last = connect(*arguments, **named)
            return self.last

        self._manager.get_connection = kept

    def turned_away(self) -> bool:
        """Whether the server told its version and then hung up: what it does where it does not know user or password."""
        last = self.last
        return last is not None and last.broker_version_data is not None and last.init_future.failed()


class _Shared(_Client):
    """A client on somebody else's I/O thread: closing it leaves the thread alone."""

    def close(self, node_id: object = None) -> None:
        if node_id is None and not self._net._closed:
            self._net.run(self._close)
        else:
            self._manager.close(node_id=node_id)

    async def _close(self) -> None:
        self._manager.close()


class _Partitioner(DefaultPartitioner):  # type: ignore[misc]  # the base class has no annotations
    """The library's, by the key or at random, which does not pay for a choice where there is none."""

    def partition(self, topic: str, *about: Any) -> Any:
        partitions = about[-1].partitions_for_topic(topic)
        if partitions is not None and len(partitions) == 1:
            return next(iter(partitions))
        return super().partition(topic, *about)


class Clients:
    """What one broker of ours has open. Everything is made at its first use, except the administration's connection."""

    def __init__(self, url: Url, options: Options, context: Context) -> None:
        self._options = options
        self.timeout = context.timeout
        self.place = ",".join(f"{host.name}:{host.port or PORT}" for host in url.hosts)
        self._config = _configuration(url, options, context.timeout)
        self._mutex = threading.Lock()
        self._producer: Any = None
        self._retiring: list[threading.Thread] = []
        self._closed = False
        self._first: Any = None  #: the administration's own
        self.net = NetworkSelector(client_id=self._config["client_id"])
        _open.add(self)
        try:
            self.admin = KafkaAdminClient(
                kafka_client=self._client,
                max_in_flight_requests_per_connection=_AT_ONCE,
                **self._config,
                **_one_timeout(context.timeout),
            )
        except BaseException as error:
            self._stop()
            if not isinstance(error, Exception):
                raise
            if url.password is not None and self._turned_away():
                raise AccessDenied(
                    f"connecting to {self.place}: the server closed the connection when user and password were shown to it. "
                    "Check them, and that ?sasl= is a mechanism that it offers",
                    backend=SCHEME,
                ) from error
            raise translate(error, f"connecting to {self.place}") from error

    def _turned_away(self) -> bool:
        return self._first is not None and self._first.turned_away()

    def _client(self, **config: Any) -> Any:
        made = _Shared(net=self.net, **config)
        if self._first is None:
            self._first = made
        return made

    def call(self, coroutine: Callable[..., Any], *arguments: object) -> Any:
        """Run `coroutine` on the I/O thread, and wait for what it returns."""
        self.check_open()
        return self.net.run(coroutine, *arguments)

    async def offsets(self, partitions: Collection[Any], which: int) -> dict[Any, int]:
        """The earliest or latest offset of each. On the I/O thread.

        Over the administration's connection: on a consumer's own it would stand behind a fetch that waits for messages.
        """
        if not partitions:
            return {}
        found = await self.admin._async_list_partition_offsets(dict.fromkeys(partitions, which), timeout_ms=self.timeout * 1000)
        return {tp: each.offset for tp, each in found.items()}

    def check_open(self) -> None:
        """Raise `Closed` after `close`."""
        if self._closed:
            raise Closed(f"this broker on {self.place} was closed; open it again", backend=SCHEME)

    def consumer(self, group: str) -> Any:
        """A consumer that has joined nothing yet; its coroutines run on the I/O thread."""
        session = int(self._options.session * 1000)
        consumer = KafkaConsumer(
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            partition_assignment_strategy=(CooperativeStickyAssignor,),
            session_timeout_ms=session,
            # A rebalance is heard of with a heartbeat: its steps take about so long.
            heartbeat_interval_ms=max(250, session // 20),
            # So long the others wait for a member that does not come to a rebalance.
            max_poll_interval_ms=max(session, 10_000),
            max_partition_fetch_bytes=_FETCH_MAX,
            metadata_max_age_ms=30_000,
            metrics_enabled=False,
            kafka_client=self._client,
            **self._config,
            **_one_timeout(self.timeout),
        )
        consumer._fetcher.PartitionRecords = Fetched
        return consumer

    @property
    def producer(self) -> Any:
        """The producer: idempotent, and nothing counts as stored before all replicas in step have it."""
        if self._producer is None:
            with self._mutex:
                self.check_open()
                if self._producer is None:
                    self._producer = self._new_producer()
        return self._producer

    def _new_producer(self) -> Any:
        limit = int(self.timeout * 1000)
        producer = KafkaProducer(
            acks="all",
            enable_idempotence=True,
            kafka_client=_Client,
            max_block_ms=limit,
            delivery_timeout_ms=limit,
            request_timeout_ms=max(1, limit * 3 // 4),
            max_request_size=_REQUEST_MAX + 4096,
            batch_size=_BATCH,
            linger_ms=min(_LINGER, limit // 4),  # with the time for a request it has to fit into the whole
            partitioner=_Partitioner(),
            metrics_enabled=False,
            bootstrap_timeout_ms=limit,
            **self._config,
        )
        _mark_what_left(producer._sender)
        return producer

    def retire_producer(self, producer: Any) -> None:
        """The next message gets a new one: this one does not get through any more. What others sent with it may end yet."""
        with self._mutex:
            if self._producer is not producer:
                return
            self._producer = None
            retiring = threading.Thread(
                target=_close, args=(producer, self.timeout), name="narrowboat-kafka-retiring", daemon=True
            )
            self._retiring = [thread for thread in self._retiring if thread.is_alive()] + [retiring]
            retiring.start()

    def close(self) -> None:
        """Close the producer and the I/O thread. Idempotent."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
        try:
            if self._producer is not None:
                _close(self._producer, self.timeout / 2)
            for thread in self._retiring:
                thread.join(self.timeout)
        finally:
            self._stop()

    def _stop(self) -> None:
        self._closed = True
        try:
            admin = getattr(self, "admin", None)
            if admin is not None:
                admin._closed = True
                admin._client.close()
        finally:
            self.net.stop(timeout_ms=self.timeout * 1000)
            self.net.close()

    def disown(self) -> None:
        """In a forked child: threads and connections are the parent's, and nothing here may touch them any more."""
        self._closed = True
        if self._producer is not None:
            self._producer._closed = True


def _disown_all() -> None:
    for clients in list(_open):
        clients.disown()


os.register_at_fork(after_in_child=_disown_all)


def _one_timeout(timeout: float) -> dict[str, int]:
    limit = int(timeout * 1000)
    return {"request_timeout_ms": max(600, limit), "bootstrap_timeout_ms": limit}


def _configuration(url: Url, options: Options, timeout: float) -> dict[str, Any]:
    """What all clients share."""
    servers = [
        f"[{host.name}]:{host.port or PORT}" if ":" in host.name else f"{host.name}:{host.port or PORT}" for host in url.hosts
    ]
    config: dict[str, Any] = {
        "bootstrap_servers": servers,
        "client_id": "narrowboat",
        "proxy_url": "narrowboat://direct",
        "reconnect_backoff_ms": 50,
        "reconnect_backoff_max_ms": 1000,
        "retry_backoff_ms": 50,
    }
    secure = url.scheme == SECURE
    if secure:
        config["ssl_context"] = options.context(backend=url.scheme)
    if url.password is not None:
        config["sasl_mechanism"] = {Sasl.PLAIN: "PLAIN", Sasl.SCRAM_256: "SCRAM-SHA-256", Sasl.SCRAM_512: "SCRAM-SHA-512"}[
            options.sasl
        ]
        config["sasl_plain_username"] = url.username
        config["sasl_plain_password"] = _Hidden(url.password.reveal())
    config["security_protocol"] = ("SASL_" if url.password is not None else "") + ("SSL" if secure else "PLAINTEXT")
    return config


def _close(producer: Any, timeout: float) -> None:
    """Close it, whatever it still tries to send: whoever asked for that has been told already that it is unknown."""
    try:
        producer.close(timeout=timeout)
    except KafkaError:
        producer._sender.force_close()
        producer._closed = True


@contextmanager
def at_once(producer: Any) -> Iterator[None]:
    """While this lasts, what the producer has or is given is sent without waiting for more."""
    accumulator = producer._accumulator
    # Whoever is first wakes it for what is there. A batch that is begun later wakes it by itself.
    wake = not accumulator.flush_in_progress() and accumulator.has_undrained()
    accumulator.begin_flush()
    try:
        if wake:
            producer._sender.wakeup()
        yield
    finally:
        accumulator._flushes_in_progress.decrement()


def _mark_what_left(sender: Any) -> None:
    """Let the producer's errors say which batch they are about, and whether it ever left this process: `future`, `left`.

    An error that ends the producer is given to other batches as well, about which it says nothing.
    """
    complete = sender._complete_batch_with_exception

    def told(batch: Any, error: Any, *arguments: Any, **named: Any) -> Any:
        error.left = batch.drained is not None
        error.future = batch.produce_future
        return complete(batch, error, *arguments, **named)

    sender._complete_batch_with_exception = told
