"""Connections: one I/O thread for everything that reads, one for what the producer writes. The library's peculiarities.

kafka-python gives every consumer an I/O thread. Here all consumers of a broker and the administration share one, on which
`member.py` runs as coroutines: the library's own coroutines are called there directly, so no thread polls and nobody waits
for a poll to end. This file, `loop.py`, `wire.py`, `member.py`, `reader.py`, `commits.py` and `fetched.py` use names that the
library does not promise; it is pinned for that.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import KafkaError, KafkaTimeoutError
from kafka.partitioner import DefaultPartitioner
from kafka.protocol.consumer import IsolationLevel

from narrowboat.contract import Context
from narrowboat.dsn import Url
from narrowboat.errors import AccessDenied, Closed
from narrowboat_kafka.errors import translate, unconnected
from narrowboat_kafka.loop import Loop
from narrowboat_kafka.options import PORT, SCHEME, SECURE, Options, Sasl
from narrowboat_kafka.wire import PLAIN_MAX, Client, SharedClient

T = TypeVar("T")

#: The earliest and the latest offset, as the server is asked for them.
EARLIEST, LATEST = -2, -1
#: Questions that may be under way on the administration's connection: each caller has its own.
_AT_ONCE = 100
#: Bytes of the largest message that is published again, to wait or as a dead letter: what goes with it makes it larger than
#: it was, and other programs' are larger than ours. The topics for these are made to take it.
LARGEST = 8 * 1024 * 1024
#: Bytes of one partition that are stored together: a thousand small messages in one request, and not in a dozen.
_BATCH = 256 * 1024
#: Milliseconds for which a batch waits for more, until `at_once`: while many are handed over, few requests are made.
_LINGER = 5
#: Seconds that what should take no time may take on a busy machine.
_SOON = 0.1
#: Bytes of each partition that are fetched at a time. It bounds what a slow consumer keeps in memory.
_FETCH_MAX = 1024 * 1024

#: What is open in this process, so that a forked child can disown it.
_open: weakref.WeakSet[Clients] = weakref.WeakSet()


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
        try:
            self.net = Loop(client_id=self._config["client_id"])
        except OSError as error:
            raise translate(error, f"connecting to {self.place}") from error
        _open.add(self)
        try:
            self.admin = KafkaAdminClient(
                kafka_client=self._client,
                max_in_flight_requests_per_connection=_AT_ONCE,
                receive_message_max_bytes=min(options.max_reply, PLAIN_MAX),
                **self._config,
                **_one_timeout(context.timeout),
            )
        except BaseException as error:
            refused = self._refused(error, url) if isinstance(error, Exception) else error
            self._stop(0.0)
            raise refused from error

    def _refused(self, error: Exception, url: Url) -> Exception:
        """Why the first connection was not made. The library says that it was not, and keeps the reason to itself."""
        if url.password is not None and self._first is not None and self._first.turned_away():
            return AccessDenied(
                f"connecting to {self.place}: the server closed the connection when user and password were shown to it. "
                "Check them, and that ?sasl= is a mechanism that it offers",
                backend=SCHEME,
            )
        met = self._first.failure if self._first is not None else None
        return unconnected(error, met, f"connecting to {self.place}", secure=url.scheme == SECURE)

    def _client(self, **config: Any) -> Any:
        made = SharedClient(net=self.net, **config)
        if self._first is None:
            self._first = made
        return made

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
        if not partitions:
            return {}
        asked = dict.fromkeys(partitions, which)
        found = await self.admin._async_list_partition_offsets(asked, IsolationLevel.READ_COMMITTED, self.timeout * 1000)
        return {tp: each.offset for tp, each in found.items()}

    def check_open(self) -> None:
        """Raise `Closed` after `close`."""
        if self._closed:
            raise Closed(f"this broker on {self.place} was closed; open it again", backend=SCHEME)

    def consumer(self, group: str) -> Any:
        """A consumer that has joined nothing yet; its coroutines run on the I/O thread."""
        session = int(self._options.session * 1000)
        return KafkaConsumer(
            group_id=group,
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
            **_one_timeout(self.timeout),
        )

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
            kafka_client=Client,
            max_block_ms=limit,
            delivery_timeout_ms=limit,
            request_timeout_ms=max(1, limit * 3 // 4),
            max_request_size=LARGEST,
            receive_message_max_bytes=min(self._options.max_reply, PLAIN_MAX),
            batch_size=_BATCH,
            linger_ms=min(_LINGER, limit // 4),  # with the time for a request it has to fit into the whole
            partitioner=_Partitioner(),
            metrics_enabled=False,
            bootstrap_timeout_ms=limit,
            **self._config,
        )
        _mark_what_left(producer)
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

    def close(self, until: float) -> None:
        """Close the producer and the I/O thread, by then if the server does not answer. Idempotent."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
        try:
            if self._producer is not None:
                _close(self._producer, _left(until))
            for thread in self._retiring:
                thread.join(_left(until))
        finally:
            self._stop(_left(until))

    def _stop(self, within: float) -> None:
        self._closed = True
        try:
            admin = getattr(self, "admin", None)
            if admin is not None:
                admin._closed = True
                admin._client.close()
        finally:
            self.net.stop(timeout_ms=1000 * (within + _SOON))
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


def _left(until: float) -> float:
    """Seconds until then, and a moment in any case."""
    return max(_SOON, until - time.monotonic())


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
        config["sasl_plain_password"] = url.password.reveal()
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


def _mark_what_left(producer: Any) -> None:
    """Let the producer's errors say which batch they are about, and whether it ever left this process: `future`, `left`.

    An error that ends the producer is given to other batches as well: which of those never left it says in `unsent`.
    """
    sender, accumulator = producer._sender, producer._accumulator
    complete, abort = sender._complete_batch_with_exception, accumulator.abort_batches

    def told(batch: Any, error: Any, *arguments: Any, **named: Any) -> Any:
        error.left = batch.drained is not None
        error.future = batch.produce_future
        return complete(batch, error, *arguments, **named)

    def aborted(error: Any) -> None:
        unsent = {batch.produce_future for batch in accumulator._incomplete.all() if batch.drained is None}
        error.unsent = unsent | getattr(error, "unsent", set())
        abort(error)

    sender._complete_batch_with_exception = told
    accumulator.abort_batches = aborted
