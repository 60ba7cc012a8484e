"""Metrics for Prometheus: a listener that counts, and a collector of depths. Needs the extra `prometheus`.

    from narrowboat.telemetry.prometheus import Metrics

    metrics = Metrics()
    broker = narrowboat.broker("sqlite:///shop.db", listeners=[metrics])
    metrics.watch(broker.queue("orders"))

`narrowboat run --health` has one by itself. In a process that serves several workers' files (prometheus-client's multiprocess
mode) the counters add up; depths belong into one process alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from narrowboat import events
from narrowboat._engine.forks import watch_forks
from narrowboat.registry import how_to_install
from narrowboat.telemetry.depths import Depths
from narrowboat.telemetry.names import Names, kind_of, outcome_of, settled_as, system

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
    from prometheus_client.core import GaugeMetricFamily, Metric
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"narrowboat.telemetry.prometheus needs prometheus-client: {how_to_install('narrowboat', 'prometheus')}",
        name=error.name,
    ) from error

if TYPE_CHECKING:
    from narrowboat.telemetry.depths import Watched

PREFIX = "narrowboat_"
#: Seconds: from a lock in memory to a handler that takes minutes.
BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """A listener for any number of locks, brokers and workers.

    Args:
        registry: where the metrics are registered; prometheus-client's own unless given.
        names: a lock's or queue's name to its label; ids become `{id}` unless given.

    Raises:
        ValueError: the registry has them already; one for a process is enough.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY, *, names: Callable[[str], str] | None = None) -> None:
        self._name = names if names is not None else Names()
        self._lock = names if names is not None else Names()  # names of locks use up no label of a queue
        self._depths = Depths()

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"{PREFIX}{name}", about, labels, registry=registry)

        def histogram(name: str, about: str, *labels: str) -> Histogram:
            return Histogram(f"{PREFIX}{name}_seconds", about, labels, buckets=BUCKETS, registry=registry)

        self._published = counter("messages_published", "Publishes, by what they came to.", "backend", "queue", "outcome")
        self._delivered = counter("messages_delivered", "Messages that were handed out.", "backend", "queue", "redelivered")
        self._settled = counter("messages_settled", "Messages, by what became of them.", "backend", "queue", "outcome")
        self._malformed = counter("messages_malformed", "Messages of others that could not be parsed.", "backend", "queue")
        self._handled = histogram("handler_duration", "How long handlers took.", "backend", "queue", "outcome")
        self._latency = histogram("message_latency", "From a publish to its handler.", "backend", "queue")
        self._waited = histogram("lock_wait", "How long acquires waited.", "backend", "lock", "outcome")
        self._held = histogram("lock_held", "How long locks were held.", "backend", "lock")
        self._lost = counter("locks_lost", "Leases that ended before they were released.", "backend", "lock", "reason")
        self._unrenewed = counter("lock_renewals_failed", "Renewals without an answer.", "backend", "lock")
        self._outages = counter("connection_losses", "Outages, as calls found them.", "backend")
        self._away = counter("connection_away_seconds", "Seconds of outages that are over.", "backend")
        about = "Messages of an outbox, as a relay counted them."
        self._outbox = Gauge(f"{PREFIX}outbox_messages", about, ("backend", "outbox", "state"), registry=registry)
        about = "Since the oldest message of an outbox was stored."
        self._age = Gauge(f"{PREFIX}outbox_age_seconds", about, ("backend", "outbox"), registry=registry)
        self.forked()
        registry.register(_Collector(self))
        watch_forks(self)

    def forked(self) -> None:
        """In a forked child no connection is lost. A new gauge: a thread that is not there may have the old one's lock."""
        self._down = Gauge(f"{PREFIX}connection_lost", "Connections that are lost now.", ("backend",), registry=None)

    def watch(self, *queues: Watched, every: float | None = None) -> None:
        """Count these at each scrape, as of at most `every` (10) seconds before: ready, in flight, delayed, dead.

        And for how long the oldest ready message has waited, where the backend claims `oldest`: 0 where none is ready. They are
        of either face. A thread counts, so no scrape waits for a backend.

        Raises:
            InvalidArgument: no queue or subscription.
        """
        self._depths.watch(queues, every)

    def __call__(self, event: Any) -> None:
        """Take in one event; those that it does not know are nothing to it."""
        of = system(event.backend)
        match event:
            case events.Handled():
                name = self._name(event.source)
                self._handled.labels(of, name, event.outcome).observe(event.duration)
                if event.waited is not None:
                    self._latency.labels(of, name).observe(event.waited)
            case events.Published():
                self._published.labels(of, self._name(event.source), "duplicate" if event.duplicate else "confirmed").inc()
            case events.PublishError():
                self._published.labels(of, self._name(event.source), kind_of(event.error)).inc()
            case events.Delivered():
                name = self._name(event.source)
                self._delivered.labels(of, name, str(event.attempt > 1).lower()).inc()
                self._settled.labels(of, name, "dead_letter")  # 0 from now on: an alert sees no increase of what was not there
            case events.Settled() | events.DeadLettered() | events.Expired() | events.Stale():
                self._settled.labels(of, self._name(event.source), settled_as(event)).inc()
            case events.Malformed():
                self._malformed.labels(of, self._name(event.source)).inc()
            case events.Acquired():
                self._waited.labels(of, self._lock(event.name), "acquired").observe(event.waited)
            case events.NotAcquired():
                self._waited.labels(of, self._lock(event.name), outcome_of(event.error)).observe(event.waited)
            case events.Released():
                self._held.labels(of, self._lock(event.name)).observe(event.held)
            case events.Lost():
                self._held.labels(of, self._lock(event.name)).observe(event.held)
                self._lost.labels(of, self._lock(event.name), event.reason.value).inc()
            case events.RenewalFailed():
                self._unrenewed.labels(of, self._lock(event.name)).inc()
            case events.ConnectionLost():
                self._outages.labels(of).inc()
                self._down.labels(of).inc()
            case events.ConnectionRegained() | events.ConnectionClosed():
                self._away.labels(of).inc(event.away)
                self._down.labels(of).dec()
            case events.OutboxMeasured():
                self._outbox.labels(of, event.table, "waiting").set(event.waiting)
                self._outbox.labels(of, event.table, "aside").set(event.aside)
                self._age.labels(of, event.table).set(event.age)


class _Collector:
    """What is no plain metric of the registry: lost connections, and the depths of watched queues, at each scrape."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> Iterable[Metric]:
        """So that registering it asks for nothing."""
        return [*self._metrics._down.describe(), self._messages(), self._oldest()]

    def collect(self) -> Iterator[Metric]:
        """What is known."""
        yield from self._metrics._down.collect()
        messages, oldest = self._messages(), self._oldest()
        for of, path, state, count in self._metrics._depths.counts():
            messages.add_metric([of, path, state], count)
        for of, path, age in self._metrics._depths.ages():
            oldest.add_metric([of, path], age)
        yield from (messages, oldest)

    @staticmethod
    def _messages() -> GaugeMetricFamily:
        about = "Messages of a watched queue."
        return GaugeMetricFamily(f"{PREFIX}queue_messages", about, labels=["backend", "queue", "state"])

    @staticmethod
    def _oldest() -> GaugeMetricFamily:
        about = "For how long the oldest ready message of a watched queue has waited."
        return GaugeMetricFamily(f"{PREFIX}queue_oldest_seconds", about, labels=["backend", "queue"])
