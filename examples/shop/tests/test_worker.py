"""The worker's handlers, by `worker.test()` and by fixtures: no server, no thread, no waiting."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

import narrowboat
from narrowboat import aio
from shop import worker as shop_worker
from shop.orders import ORDER, Order
from shop.store import MAIL, STATISTICS, Store
from shop.worker import worker

KETTLE = Order(id="order-1", item="kettle")


def sold(tables: Store, order: Order) -> None:
    tables.sell(order, 9, token=1)


@pytest.mark.asyncio
async def test_an_order_that_comes_twice_is_shipped_and_told_once(tables: Store) -> None:
    """The second one is a redelivery after a kill, or a publish that was repeated."""
    sold(tables, KETTLE)
    async with worker.test() as test:
        orders = worker.broker.queue("orders", codec=ORDER)
        await orders.publish(KETTLE, id="first")
        await orders.publish(KETTLE, id="second")
        told = await test.drain()

    assert [handled.source for handled in told.handled].count("orders") == 2
    assert tables.unshipped() == []
    shipped: Any = SimpleNamespace(id="order-1", data=KETTLE)
    assert tables.first_time(MAIL, [shipped]) == tables.first_time(STATISTICS, [shipped]) == []


@pytest.mark.asyncio
async def test_a_carrier_that_is_away_is_tried_again(tables: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The drain moves the clock over the delay."""
    sold(tables, KETTLE)
    carrier = iter([ConnectionError("the carrier is away"), None])

    async def hand(order: Order) -> None:
        error = next(carrier)
        if error is not None:
            raise error

    monkeypatch.setattr(shop_worker, "hand_to_the_carrier", hand)
    async with worker.test() as test:
        await worker.broker.queue("orders", codec=ORDER).publish(KETTLE)
        told = await test.drain()

    assert [retried.attempt for retried in told.retried] == [1]
    assert tables.unshipped() == []


@pytest.mark.asyncio
async def test_a_body_that_is_no_order_is_a_dead_letter_with_the_reason(tables: Store) -> None:
    async with worker.test() as test:
        await worker.broker.queue("orders").publish(b'{"id": "1", "item": "kettle", "pieces": "many"}')
        told = await test.drain()

    (dead,) = told.dead
    assert "pieces: " in dead.reason


@pytest.mark.asyncio
async def test_a_sale_that_fails_at_its_end_is_none_and_tells_nobody(tables: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock, order and message are one transaction."""

    def fail(*arguments: Any, **options: Any) -> str:
        raise OSError("no space left on device")

    with monkeypatch.context() as broken, pytest.raises(OSError, match="no space"):
        broken.setattr("shop.store.OUTBOX.publish", fail)
        sold(tables, KETTLE)
    assert (tables.pieces("kettle"), tables.sales()) == (10, {})
    sold(tables, KETTLE)
    assert (tables.pieces("kettle"), tables.sales()) == (9, {"kettle": 1})


@pytest.mark.asyncio
async def test_a_tick_tells_of_what_is_late(
    tables: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One order was sold at the epoch, the other one just now."""
    with monkeypatch.context() as past:
        past.setattr("shop.store.time", SimpleNamespace(time=lambda: 0.0))
        sold(tables, KETTLE)
    sold(tables, Order(id="order-2", item="kettle"))
    with caplog.at_level("INFO", "shop"):
        async with worker.test() as test:
            await test.tick("sweeper", datetime.now(UTC))
            await test.drain()

    assert "attempt 1: 1 orders are late, 0 marks deleted" in caplog.text


@pytest.mark.asyncio
async def test_the_fixtures_of_asyncio(narrowboat_aio_locks: aio.Locks, narrowboat_locks: narrowboat.Locks) -> None:
    """They need no plugin's help, and are in one space with those of the sync face."""
    async with narrowboat_aio_locks.lock("item:kettle"):
        assert await asyncio.to_thread(narrowboat_locks.lock("item:kettle").try_acquire) is None
