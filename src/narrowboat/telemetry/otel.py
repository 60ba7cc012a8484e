"""OpenTelemetry: spans and metrics by the conventions for messaging 1.44, and locks beside them. Needs the extra `otel`.

    from narrowboat.telemetry.otel import Telemetry

    telemetry = Telemetry()
    broker = narrowboat.broker("sqlite:///shop.db", listeners=[telemetry], around=[telemetry.publishing])
    worker = narrowboat.Worker(broker, around=[telemetry.handling])

It stands on opentelemetry-api, which does nothing until the program has set up an SDK. A publish is a span `publish orders`
whose context goes with each message in its headers. A handler's call is a span `process orders` with a link to each of them. An
acquire is a span `acquire invoice:{id}`, made when it has ended. Receiving and settling have no spans, because one of either
serves many callers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any

import narrowboat
from narrowboat import events
from narrowboat._engine.log import log
from narrowboat.contract.messages import Kind
from narrowboat.dsn import Host
from narrowboat.messaging import Publishing
from narrowboat.registry import how_to_install
from narrowboat.telemetry.depths import Depths
from narrowboat.telemetry.names import Names, kind_of, outcome_of, settled_as, system
from narrowboat.working.handlers import Handling

try:
    from opentelemetry import context, metrics, propagate, trace
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.propagators.textmap import TextMapPropagator
    from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, TracerProvider
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"narrowboat.telemetry.otel needs opentelemetry-api: {how_to_install('narrowboat', 'otel')}", name=error.name
    ) from error

if TYPE_CHECKING:
    from narrowboat.telemetry.depths import Watched

#: The conventions that all names here are of.
SCHEMA = "https://opentelemetry.io/schemas/1.44.0"
#: Seconds: the boundaries that the conventions ask for.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

Attributes = dict[str, Any]


class Telemetry:
    """A listener for locks, brokers and workers, and what stands around publishes and handlers. One for a process is enough.

    Args:
        tracer_provider: where spans go; the program's global one unless given.
        meter_provider: the same for metrics.
        propagator: how a context stands in headers; the global one unless given.
        names: a lock's or queue's name to its label; ids become `{id}` unless given.
        join: make the span of a handler's call a child of the publish, where it has one message. Traces of queues that are
            worked off hours later become hours long by that, so it is a link unless asked for.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        propagator: TextMapPropagator | None = None,
        *,
        names: Callable[[str], str] | None = None,
        join: bool = False,
    ) -> None:
        self._name = names if names is not None else Names()
        self._lock_name = names if names is not None else Names()  # names of locks use up no label of a queue
        self._propagator = propagator
        self._join = join
        self._told = False  # a propagator that fails is told once
        self._depths = Depths()
        version = narrowboat.__version__
        self._tracer = trace.get_tracer("narrowboat", version, tracer_provider, SCHEMA)
        meter = metrics.get_meter("narrowboat", version, meter_provider, SCHEMA)

        def histogram(name: str, about: str) -> metrics.Histogram:
            return meter.create_histogram(name, "s", about, explicit_bucket_boundaries_advisory=BUCKETS)

        self._operation = histogram("messaging.client.operation.duration", "Duration of a publish.")
        self._process = histogram("messaging.process.duration", "Duration of a handler's call.")
        self._sent = meter.create_counter("messaging.client.sent.messages", "{message}", "Messages that were published.")
        self._consumed = meter.create_counter("messaging.client.consumed.messages", "{message}", "Messages handed out.")
        self._settled = meter.create_counter("narrowboat.messages.settled", "{message}", "Messages, by what became of them.")
        self._latency = histogram("narrowboat.message.latency", "From a publish to its handler.")
        self._waited = histogram("narrowboat.lock.acquire.duration", "How long acquires waited.")
        self._held = histogram("narrowboat.lock.held.duration", "How long locks were held.")
        self._lost = meter.create_counter("narrowboat.lock.lost", "{lock}", "Leases that ended before they were released.")
        self._unrenewed = meter.create_counter("narrowboat.lock.renewal.failed", "{renewal}", "Renewals without an answer.")
        self._outages = meter.create_counter("narrowboat.connection.lost", "{outage}", "Outages, as calls found them.")
        self._away = histogram("narrowboat.connection.outage.duration", "Outages that are over.")
        self._outbox = meter.create_gauge("narrowboat.outbox.messages", "{message}", "Messages of an outbox.")
        self._age = meter.create_gauge("narrowboat.outbox.age", "s", "Since the oldest message of an outbox was stored.")
        meter.create_observable_gauge("narrowboat.queue.messages", [self._observe], "{message}", "Messages of a watched queue.")
        about = "For how long the oldest ready message of a watched queue has waited."
        meter.create_observable_gauge("narrowboat.queue.oldest", [self._observe_ages], "s", about)

    # -- around -----------------------------------------------------------------------------------------------------

    def publishing(self, call: Publishing) -> AbstractContextManager[None]:
        """For `broker(around=[...])`: a span for each publish, and its context in the headers of the messages."""
        return _Publish(self, call)

    def handling(self, call: Handling) -> Around:
        """For `Worker(around=[...])` of either face: a span for each call of a handler."""
        return Around(self, call)

    def watch(self, *queues: Watched, every: float | None = None) -> None:
        """Report how many messages these have and how old the oldest is, as `narrowboat.telemetry.prometheus.Metrics.watch`."""
        self._depths.watch(queues, every)

    def _inject(self, headers: dict[str, str], of: context.Context) -> None:
        """What a propagator raises costs the link, and not the message."""
        try:
            (self._propagator or propagate.get_global_textmap()).inject(headers, of)
        except Exception as error:
            self._unlinked("published", error)

    def _extract(self, headers: Mapping[str, str]) -> context.Context:
        """The same."""
        try:
            return (self._propagator or propagate.get_global_textmap()).extract(dict(headers), context.Context())
        except Exception as error:
            self._unlinked("handled", error)
            return context.Context()

    def _unlinked(self, what: str, error: Exception) -> None:
        if not self._told:  # it may fail for each message
            log("WARNING", "a message is %s without its trace: the propagator failed", what, error=error, event="unlinked")
        self._told = True

    def _destination(self, name: str, *, metric: bool = False) -> Attributes:
        """As an attribute of its own where it has no id in it; a metric has no name with one."""
        label = self._name(name)
        if label == name:
            return {"messaging.destination.name": name}
        return {"messaging.destination.template": label, **({} if metric else {"messaging.destination.name": name})}

    # -- the listener -----------------------------------------------------------------------------------------------

    def __call__(self, event: Any) -> None:
        """Take in one event; those that it does not know are nothing to it."""
        of = system(event.backend)
        if isinstance(event, events.LockEvent):
            self._lock(event, {"narrowboat.backend": of, "narrowboat.lock.template": self._lock_name(event.name)})
        elif isinstance(event, events.MessageEvent):
            self._message(event, {"messaging.system": of, **self._destination(event.source, metric=True)})
        elif isinstance(event, events.ConnectionLost):
            self._outages.add(1, {"narrowboat.backend": of})
        elif isinstance(event, events.ConnectionRegained | events.ConnectionClosed):
            self._away.record(event.away, {"narrowboat.backend": of})
        elif isinstance(event, events.OutboxMeasured):
            attributes = {"messaging.system": of, "narrowboat.outbox": event.table}
            self._outbox.set(event.waiting, {**attributes, "narrowboat.state": "waiting"})
            self._outbox.set(event.aside, {**attributes, "narrowboat.state": "aside"})
            self._age.set(event.age, attributes)

    def _message(self, event: events.MessageEvent, attributes: Attributes) -> None:
        match event:
            case events.Handled():
                failed = {"error.type": kind_of(event.error)} if event.error is not None else {}
                self._process.record(event.duration, {**attributes, "messaging.operation.name": "process", **failed})
                if event.waited is not None:
                    self._latency.record(event.waited, attributes)
            case events.Published() | events.PublishError():
                failed = {"error.type": kind_of(event.error)} if isinstance(event, events.PublishError) else {}
                self._sent.add(1, {**attributes, "messaging.operation.name": "publish", **failed})
            case events.Delivered():
                self._consumed.add(1, {**attributes, "messaging.operation.name": "receive"})
            case events.Settled() | events.DeadLettered() | events.Expired() | events.Stale():
                self._settled.add(1, {**attributes, "narrowboat.outcome": settled_as(event)})

    def _lock(self, event: events.LockEvent, attributes: Attributes) -> None:
        match event:
            case events.Acquired():
                outcome = {"narrowboat.outcome": "acquired"}
                self._waited.record(event.waited, {**attributes, **outcome})
                self._acquired(event.name, event.waited, {**attributes, **outcome, "narrowboat.lock.token": event.token}, None)
            case events.NotAcquired():
                outcome = {"narrowboat.outcome": outcome_of(event.error)}
                self._waited.record(event.waited, {**attributes, **outcome})
                self._acquired(event.name, event.waited, {**attributes, **outcome}, event.error)
            case events.Released():
                self._held.record(event.held, attributes)
            case events.Lost():
                self._held.record(event.held, attributes)
                self._lost.add(1, {**attributes, "narrowboat.reason": event.reason.value})
            case events.RenewalFailed():
                self._unrenewed.add(1, attributes)

    def _acquired(self, name: str, waited: float, attributes: Attributes, error: BaseException | None) -> None:
        """The span of an acquire that has ended. Listeners are told where it was made, so its parent is the caller's."""
        now = time.time_ns()
        span = self._tracer.start_span(
            f"acquire {attributes['narrowboat.lock.template']}",
            kind=SpanKind.CLIENT,
            attributes={**attributes, "narrowboat.lock.name": name},
            start_time=now - int(waited * 1e9),
        )
        if error is not None:
            _failed(span, error)
        span.end(now)

    def _observe(self, options: CallbackOptions) -> Iterable[Observation]:
        for of, path, state, count in self._depths.counts():
            where = {"messaging.system": of, "messaging.destination.name": path}
            yield Observation(count, {**where, "narrowboat.state": state})

    def _observe_ages(self, options: CallbackOptions) -> Iterable[Observation]:
        for of, path, age in self._depths.ages():
            yield Observation(age, {"messaging.system": of, "messaging.destination.name": path})


class _Publish:
    """Around one publish."""

    def __init__(self, telemetry: Telemetry, call: Publishing) -> None:
        self._telemetry, self._call = telemetry, call

    def __enter__(self) -> None:
        telemetry, call = self._telemetry, self._call
        messages = call.messages
        self._attributes: Attributes = {
            "messaging.system": system(call.backend),
            "messaging.operation.name": "publish",
            "messaging.operation.type": "send",
            **_server(call.server),
        }
        more: Attributes = telemetry._destination(call.to)
        if len(messages) != 1:
            more["messaging.batch.message_count"] = len(messages)
        else:
            more |= {
                name: value
                for name, value in (
                    ("messaging.message.id", messages[0].id),
                    ("messaging.message.conversation_id", messages[0].correlation_id),
                )
                if value
            }
        # The context of this span goes with the messages, so it is their producer, one or many.
        self._begun = time.monotonic()
        name = f"publish {telemetry._name(call.to)}"
        self._span = telemetry._tracer.start_span(name, kind=SpanKind.PRODUCER, attributes={**self._attributes, **more})
        within = trace.set_span_in_context(self._span)
        telemetry._inject(call.headers, within)
        self._token = context.attach(within)  # last: what is raised before is not followed by __exit__

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        context.detach(self._token)
        attributes = {**self._attributes, **self._telemetry._destination(self._call.to, metric=True)}
        if error is not None:
            _failed(self._span, error)
            attributes["error.type"] = kind_of(error)
        self._span.end()
        self._telemetry._operation.record(time.monotonic() - self._begun, attributes)


class Around(AbstractContextManager[None], AbstractAsyncContextManager[None]):
    """Around one call of a handler, on either face."""

    def __init__(self, telemetry: Telemetry, call: Handling) -> None:
        self._telemetry, self._call = telemetry, call

    def __enter__(self) -> None:
        telemetry, messages = self._telemetry, self._call.messages
        consumer = messages[0]._consumer
        address = consumer.address
        attributes: Attributes = {
            "messaging.system": system(consumer.backend),
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            **_server(consumer.core.server),
            **telemetry._destination(address.name),
            "narrowboat.handler": self._call.handler,
        }
        if address.kind is Kind.SUBSCRIPTION:
            attributes["messaging.destination.subscription.name"] = address.group
            attributes["messaging.consumer.group.name"] = address.group
        if len(messages) == 1:
            attributes |= {"messaging.message.id": messages[0].id, "narrowboat.attempt": messages[0].attempt}
            if messages[0].correlation_id:
                attributes["messaging.message.conversation_id"] = messages[0].correlation_id
        else:
            attributes["messaging.batch.message_count"] = len(messages)
        created = [telemetry._extract(message.headers) for message in messages]
        spans = [trace.get_current_span(each).get_span_context() for each in created]
        self._span = telemetry._tracer.start_span(
            f"process {telemetry._name(address.name)}",
            context=created[0] if telemetry._join and len(messages) == 1 and spans[0].is_valid else None,
            kind=SpanKind.CONSUMER,
            attributes=attributes,
            links=[Link(each) for each in spans if each.is_valid],
        )
        self._token = context.attach(trace.set_span_in_context(self._span))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        context.detach(self._token)
        if error is not None:
            _failed(self._span, error)
        self._span.end()

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


def _server(server: Host | None) -> Attributes:
    """Where the URL names one server: its address, and its port where that is named as well."""
    if server is None:
        return {}
    return {"server.address": server.name, **({} if server.port is None else {"server.port": server.port})}


def _failed(span: Span, error: BaseException) -> None:
    """The conventions' mark of an error. Its text is not there: it may tell what a trace's readers must not know."""
    span.set_attribute("error.type", kind_of(error))
    span.set_status(Status(StatusCode.ERROR))
