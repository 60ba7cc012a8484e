"""What was registered with a worker: each handler with its source and its options, checked before anything is consumed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from narrowboat._engine.checks import seconds
from narrowboat._engine.later import kind
from narrowboat._messages.checks import MAX_DURATION, check_count, check_group, check_source_name
from narrowboat._messages.handling import prefetch as prefetch_of
from narrowboat.dsn import unknown
from narrowboat.errors import ConfigurationError, InvalidArgument
from narrowboat.messaging.message import Seconds
from narrowboat.working.breaker import Breaker
from narrowboat.working.retry import Retry


@dataclass(frozen=True, slots=True)
class Handling:
    """One call of a handler, as what is around it sees it."""

    source: str  #: the queue or subscription
    handler: str  #: the function's name
    messages: tuple[Any, ...]  #: one message, or the batch


#: What stands around each call of a handler: it gets the Handling and gives a context manager, an asynchronous one on asyncio.
Around = Callable[[Handling], AbstractContextManager[Any]] | Callable[[Handling], AbstractAsyncContextManager[Any]]


class Skip(Exception):
    """Raised on entering what is around a handler: the handler is not called, and its messages are acked."""


class Options(TypedDict, total=False):
    """What `queue` and `subscription` of a worker take beside the source, the codec and the batch.

    `concurrency`: calls at the same time, in threads or tasks; 1 unless given. `retry`: when a message comes back, and which
    exceptions make it a dead letter at once. `breaker`: after how many failures in a row the source pauses; None: never.

    `timeout`: seconds for one call; None: without end. On asyncio it is cancelled then. A thread cannot be: its messages are
    given back as after a failure, the log says so, and it keeps its place until it ends. `max_extend`: no message is kept
    longer than these seconds for its handler; 3600. `prefetch`: how many messages may be unsettled at once.

    The rest are the source's properties, as for `broker.queue`.
    """

    concurrency: int
    retry: Retry
    breaker: Breaker | None
    timeout: Seconds | None
    max_extend: Seconds
    prefetch: int
    max_deliveries: int
    lease: Seconds
    ordered: bool
    priorities: int


class SubscriptionOptions(Options, total=False):
    """What a subscription takes as well."""

    start: Literal["latest", "earliest"]


_PROPERTIES = ("max_deliveries", "lease", "ordered", "priorities", "start")


@dataclass(frozen=True, slots=True)
class Handler:
    """A function, and where its messages come from."""

    function: Callable[[Any], Any]
    name: str
    topic: str
    group: str | None
    codec: Any
    batch: int | None
    concurrency: int
    retry: Retry
    breaker: Breaker | None
    timeout: float | None
    max_extend: float
    prefetch: int
    properties: Mapping[str, Any]

    @property
    def source(self) -> str:
        """The name of the queue or subscription."""
        return self.topic if self.group is None else f"{self.topic}.{self.group}"

    @property
    def names(self) -> tuple[str, ...]:
        """By which `only` finds it."""
        return self.name, self.source

    def open(self, broker: Any) -> Any:
        """The queue or subscription, of the broker's face. Nothing is sent."""
        if self.group is None:
            return broker.queue(self.topic, codec=self.codec, **self.properties)
        return broker.topic(self.topic, self.codec).subscription(self.group, **self.properties)


class Handlers:
    """All handlers of one worker, in the order of their registration."""

    def __init__(self, *, coroutines: bool) -> None:
        self._coroutines = coroutines
        self._by_source: dict[str, Handler] = {}
        self._others: dict[tuple[type, str], Any] = {}  # schedules and elections, which have a name and a source as well

    def add(self, function: Any, topic: str, group: str | None, codec: Any, batch: int | None, options: Any) -> None:
        """One more; `InvalidArgument` for what cannot work."""
        handler = make(function, topic, group, codec, batch, options, coroutine=self._coroutines)
        for each in self._others.values():
            self._check_apart(each, handler)
        other = self._by_source.setdefault(handler.source, handler)
        if other is not handler:
            raise InvalidArgument(
                f"{handler.name} for {handler.source!r}: {other.name} handles it already in this worker, and each message goes "
                "to one of them; take one handler, or a topic with a subscription for each"
            )

    def add_other(self, other: Any) -> None:
        """A schedule or an election; `InvalidArgument` for a second one of its name."""
        for handler in self._by_source.values():
            self._check_apart(other, handler)
        before = self._others.setdefault((type(other), other.source), other)
        if before is not other or other.source in self._by_source:
            raise InvalidArgument(
                f"{other.name} for {other.source!r}: this worker has something of that name; take another name"
            )

    def _check_apart(self, other: Any, handler: Handler) -> None:
        if handler.source in other.queues:
            raise InvalidArgument(
                f"{handler.name} for {handler.source!r}: {other.name}, a schedule of this worker, has this queue for itself; "
                "take another name"
            )

    def __iter__(self) -> Any:
        return iter((*self._by_source.values(), *self._others.values()))

    def pick(self, only: Iterable[str]) -> list[Any]:
        """Those that `only` names by function or by source; all without it. `ConfigurationError` where there is none."""
        wanted = [only] if isinstance(only, str) else list(only) if isinstance(only, Iterable) else [only]
        if not all(isinstance(word, str) for word in wanted):
            raise InvalidArgument(f"only={only!r}: expected names of handlers or sources, such as ['ship']; () for all")
        if not self._by_source and not self._others:
            raise ConfigurationError(
                "this worker has no handlers: register functions with @worker.queue(...), subscription, every or elected, or "
                "an outbox with worker.relay(...), in a module that has been imported by now"
            )
        for word in wanted:
            known = sorted({name for each in self for name in each.names})
            if word not in known:
                raise ConfigurationError(unknown("handler", word, known))
        return [each for each in self if not wanted or not set(each.names).isdisjoint(wanted)]


def check_called(given: object, example: str) -> None:
    """`InvalidArgument` for a decorator without parentheses: it was given the function, and would register nothing."""
    if callable(given):
        raise InvalidArgument(f"a decorator was given {given!r} where its first argument belongs: write {example}")


def make(
    function: Any, topic: str, group: str | None, codec: Any, batch: int | None, options: dict[str, Any], *, coroutine: bool
) -> Handler:
    """The handler, each of its options checked; what the backend must claim is checked when the worker starts."""
    check_source_name("queue" if group is None else "topic", topic)
    if group is not None:
        check_group(group)
    name = getattr(function, "__name__", type(function).__name__)
    _check_function(function, name, coroutine)
    known = sorted(SubscriptionOptions.__annotations__ if group is not None else Options.__annotations__)
    for option in options:
        if option not in known:
            raise InvalidArgument(f"{name}: {unknown('option', option, known)}")
    concurrency = check_count("concurrency", options.get("concurrency", 1), 1, 10_000)
    retry = options.get("retry", Retry())
    breaker = options.get("breaker", Breaker())
    if not isinstance(retry, Retry):
        raise InvalidArgument(f"{name}: retry={retry!r}: expected narrowboat.Retry(...)")
    if breaker is not None and not isinstance(breaker, Breaker):
        raise InvalidArgument(f"{name}: breaker={breaker!r}: expected narrowboat.Breaker(...), or None for no pauses")
    if batch is not None:
        check_count("batch", batch, 1, 10_000)
        _check_batch(name, batch, concurrency, options.get("ordered"))
    timeout = options.get("timeout")
    if timeout is not None:
        timeout = seconds("timeout", timeout, low=0.001, high=MAX_DURATION, allowed="0.001 or more seconds, or None")
    longest = seconds("max_extend", options.get("max_extend", 3600), low=0.0, high=MAX_DURATION, allowed="0 or more seconds")
    ahead = options.get("prefetch", prefetch_of(concurrency) if batch is None else 2 * batch)
    check_count("prefetch", ahead, 1, 1_000_000)
    properties = {key: options[key] for key in _PROPERTIES if key in options}
    return Handler(function, name, topic, group, codec, batch, concurrency, retry, breaker, timeout, longest, ahead, properties)


def _check_function(function: Any, name: str, coroutine: bool) -> None:
    if not callable(function):
        raise InvalidArgument(f"{function!r} cannot be called: a handler is a function of one message, or of a batch")
    found = kind(function)
    if found == "generator":
        raise InvalidArgument(f"{name} has a yield in it, so a call of it would run none of it: a handler returns")
    if (found == "coroutine") is not coroutine:
        raise InvalidArgument(
            f"{name} is a plain function, which would stop the event loop: write async def, call what blocks by "
            "asyncio.to_thread, or take narrowboat.Worker, which has threads"
            if coroutine
            else f"{name} is a coroutine function: take narrowboat.aio.Worker for it"
        )


def _check_batch(name: str, batch: int, concurrency: int, ordered: object) -> None:
    if ordered:
        raise InvalidArgument(
            f"{name}: batch={batch} with ordered=True: an ordered source hands out one message of a key at a time; take them "
            "one by one, with concurrency"
        )
    if concurrency != 1:
        raise InvalidArgument(
            f"{name}: batch={batch} with concurrency={concurrency}: batches are handled one after the other; take larger "
            "batches, or start more processes"
        )
