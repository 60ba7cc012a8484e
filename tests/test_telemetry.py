"""Metrics and traces as Prometheus and OpenTelemetry get them: names, labels, links between a publish and its handler."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import narrowboat
from narrowboat import Retry, aio, events
from narrowboat.capabilities import Support
from narrowboat.clock import ManualClock
from narrowboat.contract import Address, Depth
from narrowboat.errors import InvalidArgument, LockTimeout, NarrowboatError, Reason, Unavailable
from narrowboat.layers.faults import Faults
from narrowboat.layers.passing import PassingBroker
from narrowboat.messaging import Outbound
from narrowboat.telemetry.depths import Depths
from narrowboat.telemetry.names import OTHER, Names, system, template

prometheus_client = pytest.importorskip("prometheus_client")
sdk_trace: Any = pytest.importorskip("opentelemetry.sdk.trace")

from opentelemetry import trace  # noqa: E402  # not where it is not installed
from opentelemetry.propagators.textmap import TextMapPropagator  # noqa: E402
from opentelemetry.sdk.metrics import MeterProvider  # noqa: E402
from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402
from opentelemetry.trace import SpanKind, StatusCode  # noqa: E402

from narrowboat.telemetry.otel import SCHEMA, Telemetry  # noqa: E402
from narrowboat.telemetry.prometheus import Metrics  # noqa: E402


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}"


# -- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("orders", "orders"),
        ("orders.v2", "orders.v2"),
        ("invoice:42", "invoice:{id}"),
        ("2026-11-30", "{id}-{id}-{id}"),
        ("user/7F3C9A10-0000-4000-8000-000000000000", "user/{id}"),
        ("inbox.9f86d081884c7d65", "inbox.{id}"),
        ("deadbeef", "deadbeef"),
        ("job 01ARZ3NDEKTSV4RRFFQ69G5FAV", "job {id}"),
        ("warenkorb-übersicht", "warenkorb-übersicht"),
        ("report-2024q3", "report-2024q3"),
    ],
)
def test_ids_in_names_become_one_label(name: str, label: str) -> None:
    """Numbers, UUIDs, and long words with digits; words and versions stay."""
    assert template(name) == label


def test_names_without_end_cost_a_bounded_number_of_labels() -> None:
    """Beyond that all others are one; those that are known stay what they are."""
    names = Names(lambda name: name, most=2)

    assert [names(name) for name in ("a", "b", "c", "a", "d")] == ["a", "b", OTHER, "a", OTHER]


def test_a_system_is_what_the_conventions_call_it() -> None:
    """The product, with and without TLS; a scheme that nobody knows is itself."""
    found = [system(scheme) for scheme in ("amqp", "amqps", "kafkas", "rediss", "consuls", "sqlite", "nonsense")]
    assert found == ["rabbitmq", "rabbitmq", "kafka", "redis", "consul", "sqlite", "nonsense"]


# -- prometheus ---------------------------------------------------------------------------------------------------


class Scrape:
    """Metrics in a registry of their own, and their values."""

    def __init__(self) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        self.metrics = Metrics(self.registry)

    def __call__(self, name: str, **labels: str) -> float | None:
        found: float | None = self.registry.get_sample_value(f"narrowboat_{name}", labels)
        return found


@pytest.fixture
def scrape() -> Scrape:
    return Scrape()


def test_messages_are_counted_by_what_became_of_them(url: str, scrape: Scrape) -> None:
    """Published, delivered, settled; a handler's duration and a message's latency as histograms."""
    with narrowboat.broker(url, listeners=[scrape.metrics], random=lambda: 0.0) as broker:
        worker = narrowboat.Worker(broker)
        seen: list[int] = []
        done = threading.Event()

        @worker.queue("orders-7", retry=Retry(first=0.001, factor=1))
        def ship(message: Any) -> None:
            seen.append(message.attempt)
            if message.body == b"rope" and message.attempt == 1:
                raise ValueError("no stock")
            if len(seen) == 3:
                done.set()

        broker.queue("orders-7").publish_many([b"kettle", b"rope"])
        with worker:
            assert done.wait(60)

    where = {"backend": "memory", "queue": "orders-{id}"}
    assert scrape("messages_published_total", **where, outcome="confirmed") == 2
    assert scrape("messages_delivered_total", **where, redelivered="false") == 2
    assert scrape("messages_delivered_total", **where, redelivered="true") == 1
    assert scrape("messages_settled_total", **where, outcome="ack") == 2
    assert scrape("messages_settled_total", **where, outcome="nack") == 1
    assert scrape("messages_settled_total", **where, outcome="dead_letter") == 0
    assert scrape("handler_duration_seconds_count", **where, outcome="ack") == 2
    assert scrape("handler_duration_seconds_count", **where, outcome="nack") == 1
    assert scrape("message_latency_seconds_count", **where) == 3


def test_a_wait_for_a_lock_is_seen_in_seconds(url: str, scrape: Scrape) -> None:
    """By outcome, and under the name without its id; how long it was held as well."""
    clock = ManualClock()
    with narrowboat.locks(url, clock=clock, listeners=[scrape.metrics]) as locks:
        with locks.lock("invoice:42"):
            clock.advance(2)
            other = threading.Thread(target=lambda: locks.lock("invoice:42").try_acquire())
            other.start()
            other.join()
        with locks.lock("invoice:43"):
            pass

    where = {"backend": "memory", "lock": "invoice:{id}"}
    assert scrape("lock_wait_seconds_count", **where, outcome="acquired") == 2
    assert scrape("lock_wait_seconds_count", **where, outcome="busy") == 1
    assert scrape("lock_held_seconds_sum", **where) == 2


def test_an_outage_is_a_count_and_seconds(url: str, scrape: Scrape) -> None:
    """And a gauge while it lasts."""
    faults, clock = Faults(), ManualClock()
    with narrowboat.locks(url, clock=clock, wrap=faults.wrap, listeners=[scrape.metrics]) as locks:
        faults.fail("ping", Unavailable("no route to it"), times=2)
        for _ in range(2):
            with pytest.raises(Unavailable):
                locks.ping()
        assert scrape("connection_lost", backend="memory") == 1
        clock.advance(12)
        locks.ping()

    assert scrape("connection_lost", backend="memory") == 0
    assert scrape("connection_losses_total", backend="memory") == 1
    assert scrape("connection_away_seconds_total", backend="memory") == 12


def lose(locks: Any, faults: Faults) -> None:
    faults.fail("ping", Unavailable("no route to it"), times=2)
    for _ in range(2):
        with pytest.raises(Unavailable):
            locks.ping()


def test_a_closed_connection_is_not_lost_any_more(url: str, scrape: Scrape) -> None:
    """Or an alert would never end. Its seconds count."""
    faults, clock = Faults(), ManualClock()
    with narrowboat.locks(url, clock=clock, wrap=faults.wrap, listeners=[scrape.metrics]) as locks:
        lose(locks, faults)
        clock.advance(12)

    assert scrape("connection_lost", backend="memory") == 0
    assert scrape("connection_away_seconds_total", backend="memory") == 12


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_lost_no_connection(url: str, scrape: Scrape) -> None:
    """It has made none; its parent's is as it was."""
    faults = Faults()
    with narrowboat.locks(url, wrap=faults.wrap, listeners=[scrape.metrics]) as locks:
        lose(locks, faults)
        child = os.fork()
        if child == 0:
            os._exit(1 if scrape("connection_lost", backend="memory") else 0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert scrape("connection_lost", backend="memory") == 1


def test_names_of_locks_use_up_no_label_of_a_queue(scrape: Scrape, meter: Meter) -> None:
    """Each kind has its own bound."""
    for first in "abcdefghijklmnopqrstuvwxyz":
        for second in "abcdefghijklmnopqrstuvwxyz":
            for listener in (scrape.metrics, meter.telemetry):
                listener(events.Released("memory", f"customer-{first}{second}", 1, 0.5))
    for listener in (scrape.metrics, meter.telemetry):
        listener(events.Published("memory", "orders", "1", False))

    assert scrape("messages_published_total", backend="memory", queue="orders", outcome="confirmed") == 1
    (point,) = meter.points()["messaging.client.sent.messages"]
    assert dict(point.attributes)["messaging.destination.name"] == "orders"


def test_the_depths_of_watched_queues_are_in_a_scrape(url: str, scrape: Scrape, meter: Meter) -> None:
    """Without a call by the scrape: a thread counts, and the next scrape has it. An age is 0 where none waits."""
    with narrowboat.broker(url) as broker:
        queue = broker.queue("orders")
        queue.publish_many([b"kettle", b"rope"])
        queue.publish(b"lamp", delay=60)
        scrape.metrics.watch(queue, every=0.1)
        where = {"backend": "memory", "queue": "orders"}
        ends = time.monotonic() + 60
        while scrape("queue_messages", **where, state="ready") is None and time.monotonic() < ends:
            time.sleep(0.01)  # a scrape is told nothing, and scrapes again

        found = [scrape("queue_messages", **where, state=state) for state in ("ready", "in_flight", "delayed", "dead")]
        assert found == [2, 0, 1, 0]
        assert (scrape("queue_oldest_seconds", **where) or 0) > 0

        meter.telemetry.watch(queue)
        queue.purge()
        counted(meter.telemetry._depths)
        points = meter.points()
        states = {point.attributes["narrowboat.state"]: point.value for point in points["narrowboat.queue.messages"]}
        assert states == {"ready": 0, "in_flight": 0, "delayed": 0, "dead": 0}
        assert [point.value for point in points["narrowboat.queue.oldest"]] == [0]


def test_what_no_backend_tells_has_no_point(url: str) -> None:
    """A count that it cannot know, and an age that it does not claim."""

    class KnowsLittle(PassingBroker):
        def depth(self, address: Address) -> Depth:
            return Depth(3, None, None, 0)

    depths = Depths()
    with narrowboat.broker(url, wrap=KnowsLittle) as broker:
        broker._core.capabilities = dataclasses.replace(broker.capabilities, oldest=Support.ABSENT)
        depths.watch([broker.queue("orders")], None)
        counted(depths)
        assert list(depths.counts()) == [("memory", "orders", "ready", 3), ("memory", "orders", "dead", 0)]
        assert list(depths.ages()) == []


def test_a_backend_that_is_away_keeps_no_scrape_waiting(url: str) -> None:
    """The question stands still on its thread, and is not asked a second time meanwhile; what is not known is not told."""
    faults = Faults()
    depths = Depths()
    with narrowboat.broker(url, wrap=faults.wrap) as broker:
        queue = broker.queue("orders")
        queue.declare()
        gate = faults.hold("depth", before=True)
        depths.watch([queue], 0.1)
        assert depths.look() == {}
        assert gate.reached.wait(60)
        asking = depths._asking
        assert depths.look() == {} and depths._asking is asking and asking is not None
        faults.fail("depth", Unavailable("no route to it"))
        gate.open()
        asking.join(60)
        assert next(iter(depths.look().values())).ready == 0


def counted(depths: Depths) -> dict[Any, Any]:
    """What is found by a look that begins now."""
    depths._asked = float("-inf")
    depths.look()
    asking = depths._asking
    if asking is not None:
        asking.join(60)
    return depths.look()


def test_a_look_that_meets_a_fault_is_not_the_last(url: str) -> None:
    """Of a driver or of a layer: numbers that are never asked for again would look as if nothing changed."""
    broken = [True]

    class Odd(PassingBroker):
        def depth(self, address: Address) -> Depth:
            if broken:
                raise TypeError(broken.pop())
            return super().depth(address)

    depths = Depths()
    with narrowboat.broker(url, wrap=Odd) as broker:
        queue = broker.queue("orders")
        queue.declare()
        depths.watch([queue], None)
        assert counted(depths) == {}
        assert [each.ready for each in counted(depths).values()] == [0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_was_forked_during_a_look_looks_again(url: str) -> None:
    """The thread that looks is its parent's."""
    faults, depths = Faults(), Depths()
    with narrowboat.broker(url, wrap=faults.wrap) as broker:
        queue = broker.queue("orders")
        queue.declare()
        gate = faults.hold("depth", before=True)
        depths.watch([queue], None)
        depths.look()
        assert gate.reached.wait(60)
        child = os.fork()
        if child == 0:
            try:
                found = counted(depths)
            except BaseException:
                found = {}
            os._exit(0 if found else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        gate.open()


def test_a_queue_of_a_closed_broker_is_watched_no_longer(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Or there would be a line of the log at each scrape."""
    depths = Depths()
    with narrowboat.broker(url) as other, narrowboat.broker(url) as broker:
        for each in (broker, other):
            each.queue("orders").declare()
            depths.watch([each.queue("orders")], None)
        broker.close()
        assert len(counted(depths)) == 1 and len(depths._queues) == 1
        other.close()
        assert counted(depths) == {}
    assert caplog.records == []


def test_queues_of_the_asyncio_face_are_watched(url: str) -> None:
    """By the same thread: what is counted needs no event loop, and waits for none."""
    depths = Depths()

    async def main() -> None:
        async with aio.broker(url) as broker:
            subscription = broker.topic("prices").subscription("page")
            await subscription.declare()
            await broker.topic("prices").publish(b"kettle")
            depths.watch([broker.queue("orders"), subscription], None)
            found = counted(depths)  # the loop stands still meanwhile
            assert {path: depth.ready for (_, path), depth in found.items()} == {"orders": 0, "prices.page": 1}
            assert {path: age > 0 for _, path, age in depths.ages()} == {"orders": False, "prices.page": True}
        assert counted(depths) == {}

    asyncio.run(main())


def test_what_cannot_be_watched_is_refused(url: str, scrape: Scrape) -> None:
    """A topic keeps no messages, and a name is no queue."""
    with narrowboat.broker(url) as broker:
        for thing in (broker.topic("prices"), "orders", broker):
            with pytest.raises(InvalidArgument, match="expected a queue or subscription"):
                scrape.metrics.watch(thing)  # type: ignore[arg-type]


def every_event() -> Iterator[events.Event]:
    """One of each class, so that a new one is not forgotten here."""
    error = ValueError("no stock")
    values = {
        "backend": "memory", "name": "invoice:42", "url": "memory://x", "source": "orders", "id": "1", "token": 1,
        "waited": 0.5, "held": 2.0, "error": error, "reason": Reason.EXPIRED, "duplicate": False, "attempt": 1,
        "outcome": "ack", "attempts": 5, "problem": "odd", "duration": 0.2, "away": 3.0,
        "table": "outbox", "waiting": 7, "aside": 1, "age": 4.0,
    }  # fmt: skip
    for kind in vars(events).values():
        if isinstance(kind, type) and issubclass(kind, events.Event) and not kind.__subclasses__():
            fields = {name: values[name] for name in kind.__dataclass_fields__}
            if kind is events.DeadLettered:
                fields["reason"] = "no stock"
            made: Any = kind
            yield made(**fields)


def test_every_event_but_a_good_renewal_is_in_the_metrics() -> None:
    """Of both: what is heard changes a number."""
    for event in every_event():
        scrape, meter = Scrape(), Meter()
        before, quiet = prometheus_client.generate_latest(scrape.registry), meter.names()
        scrape.metrics(event)
        meter.telemetry(event)
        changed = prometheus_client.generate_latest(scrape.registry) != before, meter.names() != quiet
        if isinstance(event, events.Malformed):
            changed = changed[0], True  # OpenTelemetry has the log for it
        assert changed == ((False, False) if isinstance(event, events.Renewed) else (True, True)), event


# -- opentelemetry ------------------------------------------------------------------------------------------------


class Meter:
    """A Telemetry whose spans and metrics stay in memory."""

    def __init__(self, **options: Any) -> None:
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = sdk_trace.TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.telemetry = Telemetry(self.tracers, MeterProvider([self.reader]), **options)

    def spans(self) -> dict[str, Any]:
        return {span.name: span for span in self.exporter.get_finished_spans()}

    def points(self) -> dict[str, list[Any]]:
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        metrics = [metric for each in data.resource_metrics for scope in each.scope_metrics for metric in scope.metrics]
        return {metric.name: list(metric.data.data_points) for metric in metrics}

    def names(self) -> set[str]:
        return set(self.points())


@pytest.fixture
def meter() -> Meter:
    return Meter()


def work(face: str, url: str, meter: Meter, handle: Callable[[Any], None], *messages: Outbound[bytes], **options: Any) -> None:
    """Publish these and let a worker handle them, until one call has ended."""
    done = threading.Event()

    def listen(event: Any) -> None:
        meter.telemetry(event)
        if isinstance(event, events.Handled):
            done.set()

    if face == "sync":
        with narrowboat.broker(url, listeners=[listen], around=[meter.telemetry.publishing]) as broker:
            worker = narrowboat.Worker(broker, around=[meter.telemetry.handling])
            register: Any = worker.queue("orders", **options)  # which overload it is, such options do not say
            register(handle)
            broker.queue("orders").publish_many(messages)
            with worker:
                assert done.wait(60)
        return

    async def main() -> None:
        async def called(message: Any) -> None:
            handle(message)

        async with aio.broker(url, listeners=[listen], around=[meter.telemetry.publishing]) as broker:
            worker = aio.Worker(broker, around=[meter.telemetry.handling])
            register: Any = worker.queue("orders", **options)
            register(called)
            await broker.queue("orders").publish_many(messages)
            async with worker:
                assert await asyncio.to_thread(done.wait, 60)

    asyncio.run(main())


@pytest.mark.parametrize("face", ["sync", "asyncio"])
def test_a_handlers_span_links_to_the_publish(face: str, url: str, meter: Meter) -> None:
    """By headers; names, kinds and attributes are the conventions'. What the handler does is a child of its span."""
    tracer = meter.tracers.get_tracer("shop")

    def handle(message: Any) -> None:
        assert message.headers["traceparent"].count("-") == 3
        with tracer.start_as_current_span("charge"):
            pass

    work(face, url, meter, handle, Outbound(b"kettle", id="order-1", correlation_id="cart-5"))

    spans = meter.spans()
    publish, process, charge = spans["publish orders"], spans["process orders"], spans["charge"]
    assert (publish.kind, process.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert [link.context.span_id for link in process.links] == [publish.context.span_id]
    assert process.parent is None and charge.parent.span_id == process.context.span_id
    shared = {
        "messaging.system": "memory",
        "messaging.destination.name": "orders",
        "messaging.message.id": "order-1",
        "messaging.message.conversation_id": "cart-5",
    }
    assert dict(publish.attributes) == {**shared, "messaging.operation.name": "publish", "messaging.operation.type": "send"}
    assert dict(process.attributes) == {
        **shared,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "narrowboat.handler": "handle" if face == "sync" else "called",
        "narrowboat.attempt": 1,
    }
    assert publish.instrumentation_scope.schema_url == process.instrumentation_scope.schema_url == SCHEMA


@pytest.mark.parametrize(
    ("server", "told"),
    [
        ("redis://127.0.0.1:9", {"server.address": "127.0.0.1", "server.port": 9}),
        ("redis+cluster://127.0.0.1:9,127.0.0.1:10", {}),  # nobody knows which of them answers
    ],
)
def test_a_span_names_the_server_of_the_url(server: str, told: dict[str, Any], meter: Meter) -> None:
    """Also where nobody answers there; what lives in this process or in a file has none, see above."""
    around = [meter.telemetry.publishing]
    with narrowboat.broker(server, around=around, timeout=0.2) as broker, pytest.raises(NarrowboatError):
        broker.queue("orders").publish(b"kettle")
    attributes = dict(meter.spans()["publish orders"].attributes)
    assert {name: value for name, value in attributes.items() if name.startswith("server.")} == told


def test_a_publish_within_a_span_is_its_child_and_its_context_ends_with_it(url: str, meter: Meter) -> None:
    """The caller's context is as before afterwards."""
    tracer = meter.tracers.get_tracer("shop")
    around = [meter.telemetry.publishing]
    with narrowboat.broker(url, around=around) as broker, tracer.start_as_current_span("checkout") as outer:
        broker.queue("orders").publish(b"kettle")
        assert trace.get_current_span() is outer

    spans = meter.spans()
    assert spans["publish orders"].parent.span_id == spans["checkout"].context.span_id


def test_a_batch_is_one_span_with_a_link_for_each_message(url: str, meter: Meter) -> None:
    """And its count; it has no message's id."""
    work("sync", url, meter, lambda batch: None, Outbound(b"kettle"), Outbound(b"rope"), batch=2)

    spans = meter.spans()
    publish, process = spans["publish orders"], spans["process orders"]
    assert publish.attributes["messaging.batch.message_count"] == process.attributes["messaging.batch.message_count"] == 2
    assert "messaging.message.id" not in process.attributes
    assert [link.context.span_id for link in process.links] == [publish.context.span_id] * 2


def test_a_handler_joins_the_trace_where_that_is_asked_for(url: str) -> None:
    """Its span is a child of the publish then."""
    meter = Meter(join=True)
    work("sync", url, meter, lambda message: None, Outbound(b"kettle"))

    spans = meter.spans()
    assert spans["process orders"].parent.span_id == spans["publish orders"].context.span_id


def test_headers_of_others_are_no_context(url: str, meter: Meter) -> None:
    """Nonsense in traceparent is no link and no error; what a program gave itself is kept."""
    work("sync", url, meter, lambda message: None, Outbound(b"kettle", headers={"traceparent": "nonsense"}))

    assert len(meter.spans()["process orders"].links) == 0


class Broken(TextMapPropagator):
    """A propagator that fails at everything."""

    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind

    def inject(self, *arguments: Any, **options: Any) -> None:
        raise self.kind("inject")

    def extract(self, *arguments: Any, **options: Any) -> Any:
        raise self.kind("extract")

    @property
    def fields(self) -> set[str]:
        return set()


def test_a_propagator_that_fails_costs_the_link_and_not_the_message(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is told once; both spans are there."""
    meter = Meter(propagator=Broken(RuntimeError))
    work("sync", url, meter, lambda message: None, Outbound(b"kettle"))

    assert set(meter.spans()) == {"publish orders", "process orders"}
    assert trace.get_current_span() is trace.INVALID_SPAN
    assert [record.getMessage() for record in caplog.records if record.name == "narrowboat"] == [
        "a message is published without its trace: the propagator failed"
    ]


def test_an_interrupt_within_a_propagator_leaves_the_callers_context(url: str) -> None:
    """What is published next is no child of a span that never ended."""
    meter = Meter(propagator=Broken(KeyboardInterrupt))
    with narrowboat.broker(url, around=[meter.telemetry.publishing]) as broker:
        with pytest.raises(KeyboardInterrupt):
            broker.queue("orders").publish(b"kettle")
        assert trace.get_current_span() is trace.INVALID_SPAN


def test_what_fails_is_marked_with_its_type(url: str, meter: Meter) -> None:
    """Not with its text, which may tell too much; the metric has it as well."""

    def handle(message: Any) -> None:
        raise ValueError("card 4111")

    work("sync", url, meter, handle, Outbound(b"kettle"))

    span = meter.spans()["process orders"]
    assert (span.status.status_code, span.attributes["error.type"]) == (StatusCode.ERROR, "ValueError")
    assert "4111" not in span.to_json()
    (point,) = meter.points()["messaging.process.duration"]
    assert point.attributes["error.type"] == "ValueError"


def test_a_subscription_is_a_topic_and_a_group(url: str, meter: Meter) -> None:
    """So that all groups of a topic are found under its name."""
    done = threading.Event()
    with narrowboat.broker(url, around=[meter.telemetry.publishing]) as broker:
        worker = narrowboat.Worker(broker, around=[meter.telemetry.handling])
        worker.subscription("prices", "dashboard")(lambda message: done.set())
        broker.topic("prices").subscription("dashboard").declare()
        broker.topic("prices").publish(b"kettle 12.50")
        with worker:
            assert done.wait(60)

    attributes = meter.spans()["process prices"].attributes
    assert attributes["messaging.destination.name"] == "prices"
    assert attributes["messaging.consumer.group.name"] == attributes["messaging.destination.subscription.name"] == "dashboard"


def test_metrics_have_the_conventions_names_units_and_boundaries(url: str, meter: Meter) -> None:
    """And no name with an id in it."""
    work("sync", url, meter, lambda message: None, Outbound(b"kettle"))
    with narrowboat.broker(url, around=[meter.telemetry.publishing], listeners=[meter.telemetry]) as broker:
        broker.queue("basket-42").publish(b"kettle")

    data = meter.reader.get_metrics_data()
    assert data is not None
    (scope,) = data.resource_metrics[0].scope_metrics
    found = {metric.name: metric for metric in scope.metrics}
    assert scope.schema_url == SCHEMA
    for name, unit in {
        "messaging.client.operation.duration": "s",
        "messaging.process.duration": "s",
        "messaging.client.sent.messages": "{message}",
        "messaging.client.consumed.messages": "{message}",
    }.items():
        assert found[name].unit == unit
    duration = found["messaging.client.operation.duration"].data.data_points
    assert duration[0].explicit_bounds == (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
    assert "basket-42" not in data.to_json()
    assert {"messaging.destination.template": "basket-{id}"}.items() <= dict(duration[-1].attributes or {}).items()


def test_an_acquire_is_a_span_that_begins_when_it_was_asked_for(url: str, meter: Meter) -> None:
    """A child of the caller's; silent waiting is as long as it was. One that ends without the lock is marked."""
    tracer, clock = meter.tracers.get_tracer("shop"), ManualClock()
    with narrowboat.locks(url, clock=clock, listeners=[meter.telemetry]) as locks:
        with tracer.start_as_current_span("checkout"), locks.lock("invoice:42") as held:
            clock.advance(3)
            other = threading.Thread(target=pytest.raises, args=(LockTimeout, locks.lock("invoice:42").acquire, 0))
            other.start()
            other.join()
        span = meter.exporter.get_finished_spans()[0]

    spans = meter.spans()
    assert set(spans) == {"acquire invoice:{id}", "checkout"}
    both: list[Any] = [each for each in meter.exporter.get_finished_spans() if each.name.startswith("acquire")]
    acquired, missed = both
    parents = {each.parent.span_id for each in (acquired, missed) if each.parent is not None}
    assert parents == {spans["checkout"].context.span_id} and span in (acquired, missed)
    assert acquired.attributes["narrowboat.lock.token"] == held.token
    assert acquired.attributes["narrowboat.lock.name"] == "invoice:42"
    assert missed.attributes["narrowboat.outcome"] == "timeout" and missed.status.status_code is StatusCode.ERROR
    (held_for,) = meter.points()["narrowboat.lock.held.duration"]
    assert (held_for.sum, dict(held_for.attributes)["narrowboat.lock.template"]) == (3, "invoice:{id}")


def test_without_an_sdk_nothing_happens(url: str) -> None:
    """The API alone does nothing, and a publish is as before."""
    telemetry = Telemetry()
    with narrowboat.broker(url, listeners=[telemetry], around=[telemetry.publishing]) as broker:
        assert not broker.queue("orders").publish(b"kettle").duplicate
