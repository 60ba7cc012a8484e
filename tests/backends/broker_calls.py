"""A driver in a test's hands: open one of either half on the test's clock, and call one of messages in few words."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from narrowboat.clock import ManualClock
from narrowboat.contract import (
    Address,
    Broker,
    BrokerBackend,
    Context,
    Delivery,
    Feed,
    Kind,
    LockBackend,
    Outcome,
    Outgoing,
    Properties,
    Source,
)
from narrowboat.dsn import Url, parse_options
from narrowboat.errors import NarrowboatError

ORDERS = Address(Kind.QUEUE, "orders")
PRICES = Address(Kind.TOPIC, "prices")
DASHBOARD = Address(Kind.SUBSCRIPTION, "prices", "dashboard")
AUDIT = Address(Kind.SUBSCRIPTION, "prices", "audit")

#: what the fixture `drivers` gives: opens one more broker on the same namespace, with the options of a URL
Drivers = Callable[..., Broker]

_serial = itertools.count(1)


def open_driver(backend: BrokerBackend | LockBackend, text: str, clock: ManualClock | None = None) -> Any:
    """What `backend` opens, on `clock` or on the machine's: a broker, or a provider of locks."""
    from narrowboat.clock import SystemClock

    url = Url.parse(text)
    used = clock or SystemClock()
    options = parse_options(url, backend.options, {})
    return backend.open(url, options, Context(clock=used, timeout=5.0, watch=used.watch))


def message(to: Address, id: str | None = None, body: bytes = b"x", **fields: Any) -> Outgoing:
    """A message with nothing special but `fields`."""
    plain: dict[str, Any] = {
        "headers": {},
        "key": None,
        "published_at": 12.5,
        "delay": 0.0,
        "priority": 0,
        "ttl": None,
        "correlation_id": None,
        "content_type": None,
        "reply_to": None,
        "dedup": False,
    }
    return Outgoing(to=to, id=id or f"m{next(_serial)}", body=body, **{**plain, **fields})


def send(broker: Broker, to: Address, *ids: str, **fields: Any) -> list[Any]:
    return broker.send([message(to, id, **fields) for id in ids])


def consume(broker: Broker, address: Address, wake: Callable[[], None] = lambda: None, **properties: Any) -> Feed:
    return broker.open(Source(address, Properties(**properties)), earliest=False, wake=wake)


def ids(deliveries: list[Delivery]) -> list[str]:
    return [delivery.id for delivery in deliveries]


def take(feed: Feed, limit: int = 100) -> list[Delivery]:
    return feed.receive(limit).deliveries


def settle(feed: Feed, outcome: Outcome, *deliveries: Delivery) -> list[NarrowboatError | None]:
    return feed.settle([(delivery, outcome) for delivery in deliveries])
