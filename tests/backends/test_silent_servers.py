"""Calls of one driver that stand at one of its mutexes while the server is silent: each ends in its own time (B134)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from at_once import CONTEXT, TIMEOUT, end_together, opened, silent
from narrowboat import registry
from narrowboat.contract import Address, Kind, Mode, Properties, Request, Source
from narrowboat.dsn import Url

ORDERS = Source(Address(Kind.QUEUE, "orders"), Properties())
OTHERS = Source(Address(Kind.QUEUE, "others"), Properties())


def attempt(locks: Any, name: str) -> Callable[[], object]:
    """One attempt for a lock; the error that is its answer is raised."""

    def call() -> None:
        (answer,) = locks.attempt([Request(name, f"owner of {name}", 30.0, Mode.EXCLUSIVE, None, False, lambda: None, "")])
        if isinstance(answer, BaseException):
            raise answer

    return call


@pytest.mark.parametrize(
    "text",
    ["redis://127.0.0.1:{}/0", "redis+cluster://127.0.0.1:{}", "postgresql://nb@127.0.0.1:{}/nb", "consul://127.0.0.1:{}"],
)
def test_attempts_end_together(text: str) -> None:
    with silent() as port:
        locks = opened(registry.lock_backend(text.partition(":")[0].partition("+")[0]), text.format(port))
        try:
            end_together(*(attempt(locks, name) for name in ("a", "b", "c")))
        finally:
            locks.close()


@pytest.mark.parametrize(
    "text",
    [
        "redis://127.0.0.1:{}/0",
        "postgresql://nb@127.0.0.1:{}/nb",
        "amqp://127.0.0.1:{}",
        "zmq://127.0.0.1:{}",
        "rocketmq://127.0.0.1:{0}?admin=127.0.0.1:{0}",
    ],
)
def test_declarations_end_together(text: str) -> None:
    """Two of one queue and one of another."""
    scheme = text.partition(":")[0]
    if scheme == "rocketmq":
        pytest.importorskip("grpc")
    with silent() as port:
        broker = opened(registry.broker_backend(scheme), text.format(port))
        try:
            end_together(*(lambda each=each: broker.declare(each, earliest=False) for each in (ORDERS, ORDERS, OTHERS)))
        finally:
            broker.close()


def test_calls_that_open_a_feed_anew_end_together() -> None:
    """A server of ZeroMQ that has begun anew knows no feed. Each call of one opens it, or waits for another that does."""
    pytest.importorskip("zmq")
    from narrowboat_zeromq.client import opening
    from narrowboat_zeromq.feed import ZeroMQFeed

    with silent() as port:
        url, options = Url.parse(f"zmq://127.0.0.1:{port}"), registry.broker_backend("zmq").options()
        link = opening.link("messages", url, options, CONTEXT, lambda woken: None)
        feed = ZeroMQFeed(link, 1, ORDERS, lambda: None, {})
        link.generation += 1
        try:
            end_together(*[lambda: feed.receive(1)] * 3)
        finally:
            link.close(TIMEOUT)
