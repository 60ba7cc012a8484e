"""Everything behind one broker URL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from narrowboat._engine.holdable import SyncOnly
from narrowboat._engine.later_events import events
from narrowboat._engine.runtime import Blocking, run
from narrowboat._messages.core import BrokerCore
from narrowboat._messages.source import list_sources, make_queue, make_topic
from narrowboat.capabilities import BrokerCapabilities
from narrowboat.clock import Clock
from narrowboat.codecs import Codec
from narrowboat.contract.messages import Address, Broker
from narrowboat.dsn import hidden, hidden_secrets
from narrowboat.health import Connection
from narrowboat.messaging.message import Seconds
from narrowboat.messaging.queue import Queue
from narrowboat.messaging.topic import Topic

if TYPE_CHECKING:
    from narrowboat._messages.around import AroundPublish

T = TypeVar("T")


def broker(
    url: str | None = None,
    *,
    require: str | Mapping[str, object] | None = None,
    clock: Clock | None = None,
    random: Callable[[], float] | None = None,
    listeners: Sequence[events.Listener] = (),
    wrap: Callable[[Broker], Broker] | None = None,
    around: Sequence[AroundPublish] = (),
    **options: object,
) -> Messaging:
    """Queues and topics on the backend that `url` names. Connects at the first call, not here.

    Args:
        url: such as `memory://`, `sqlite:///shop.db`, `amqp://host`; None reads NARROWBOAT_BROKER_URL.
        require: what the backend must promise, such as `"order,survives=power"`; see `narrowboat.capabilities`.
        clock: for tests; the machine's own unless given.
        random: for tests; numbers in [0, 1) for jitter.
        listeners: called with each record of `narrowboat.events`.
        wrap: puts a layer between the core and the driver; see `narrowboat.layers`.
        around: what stands around each publish, the first outermost: functions of a `narrowboat.messaging.Publishing` that give
            a context manager, a plain one on both faces. It may add headers; it sees what the publish raises, and cannot
            swallow it.
        options: the backend's options; they beat the URL's.

    Raises:
        ConfigurationError: the URL, an option or the installation cannot work.
        Unsupported: the backend does not promise what is required.
    """
    url, options = hidden(url), hidden_secrets(options)
    core = BrokerCore(url, require, clock, random, listeners, wrap, options, Blocking)
    if around != ():
        from narrowboat._messages.around import check  # for brokers that are given some

        core.around = check(around)
    return Messaging(core)


class Messaging(SyncOnly):
    """All queues and topics behind one URL. Use it in a `with`, or `close()` it.

    It is safe to share between threads.
    """

    def __init__(self, core: BrokerCore) -> None:
        self._core = core
        self._unclosed = core.unclosed()

    @property
    def capabilities(self) -> BrokerCapabilities:
        """What this backend claims."""
        return self._core.capabilities

    @overload
    def queue(
        self,
        name: str,
        *,
        codec: None = None,
        max_deliveries: int | None = None,
        lease: Seconds | None = None,
        ordered: bool = False,
        priorities: int = 0,
    ) -> Queue[bytes]: ...

    @overload
    def queue(
        self,
        name: str,
        *,
        codec: Codec[T],
        max_deliveries: int | None = None,
        lease: Seconds | None = None,
        ordered: bool = False,
        priorities: int = 0,
    ) -> Queue[T]: ...

    def queue(
        self,
        name: str,
        *,
        codec: Codec[Any] | None = None,
        max_deliveries: int | None = None,
        lease: Seconds | None = None,
        ordered: bool = False,
        priorities: int = 0,
    ) -> Queue[Any]:
        """A queue by this name. Nothing is sent yet.

        Its properties are stored when it is first declared or consumed from. `ordered` and `priorities` that differ later raise
        `Conflict`. `max_deliveries` and `lease` are those of the consumers of this object, and those that do not ask take what
        is stored, also when it is altered while they run (where the backend claims `alter`).

        Args:
            name: 1 to 1,000 characters without control characters, not ending in .dead, .retry or .delayed.
            codec: what makes `data` of bytes, such as `narrowboat.codecs.JSON`; None leaves bytes as they are.
            max_deliveries: a message that was delivered so often without an ack becomes a dead letter; 0: never. None: as
                stored, 5 where this stores it.
            lease: seconds that a delivery is ours; after that it is redelivered. None: as stored, 30 where this stores it.
            ordered: messages of one key go out one at a time, in order.
            priorities: levels above 0.

        Raises:
            InvalidArgument: an argument outside what is allowed.
            Unsupported: the backend does not claim what is asked.
        """
        return Queue(make_queue(self._core, name, codec, max_deliveries, lease, ordered, priorities))

    @overload
    def topic(self, name: str, codec: None = None) -> Topic[bytes]: ...

    @overload
    def topic(self, name: str, codec: Codec[T]) -> Topic[T]: ...

    def topic(self, name: str, codec: Codec[Any] | None = None) -> Topic[Any]:
        """A topic by this name; queues and topics share their names. Nothing is sent yet."""
        return Topic(make_topic(self._core, name, codec))

    def sources(self) -> list[Address]:
        """The queues, topics and subscriptions that are there, by name, without dead letters.

        Raises `Unsupported` where the backend does not claim `listing`.
        """
        return run(list_sources(self._core))

    def ping(self) -> None:
        """One round trip; raises `Unavailable` or `AccessDenied` when the backend cannot be used."""
        run(self._core.ask(lambda driver: driver.ping()))

    def health(self) -> Connection:
        """What calls have found out about the connection; it asks no backend, and is of one moment."""
        return self._core.reach.health()

    def close(self) -> None:
        """Return unsettled messages, wake waiting callers (`Closed`), end all threads.

        It takes one operation timeout and a fifth at most. It may be repeated.
        """
        if self._core.begin_close():
            self._core.finish_close()

    def __enter__(self) -> Messaging:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Messaging {self._core.url}>"
