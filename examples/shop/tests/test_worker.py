"""The worker's handlers, by `worker.test()` and by fixtures: no server, no thread, no waiting."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

import narrowboat
from narrowboat import aio
from shop import worker as shop_worker
from shop.orders import ORDER, Order
from shop.store import Store
from shop.sweep import sweep
from shop.worker import worker

KETTLE = Order(id="order-1", item="kettle")


def sold(tables: Store, order: Order) -> None:
    tables.sell(order, 9, fence=1)


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
    assert tables.first_time("mail", ["order-1"]) == tables.first_time("statistics", ["order-1"]) == []


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
async def test_what_was_sold_and_not_published_is_swept_up(tables: Store, narrowboat_aio_broker: aio.Messaging) -> None:
    """Once in a while, and not before its time."""
    sold(tables, KETTLE)

    assert await sweep(narrowboat_aio_broker, older=600) == 0
    assert await sweep(narrowboat_aio_broker, older=0) == 1
    assert await sweep(narrowboat_aio_broker, older=600) == 0
    async with narrowboat_aio_broker.queue("orders", codec=ORDER).consume(idle=0) as messages:
        assert [message.data async for message in messages] == [KETTLE]


@pytest.mark.asyncio
async def test_a_tick_sweeps_up_what_is_old_and_the_worker_ships_it(tables: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order was sold at the epoch."""
    with monkeypatch.context() as past:
        past.setattr("shop.store.time", SimpleNamespace(time=lambda: 0.0))
        sold(tables, KETTLE)
    async with worker.test() as test:
        await test.tick("sweeper", datetime.now(UTC))
        told = await test.drain()

    assert [handled.source for handled in told.handled][:2] == ["schedule.sweeper", "orders"]
    assert tables.unshipped() == []


@pytest.mark.asyncio
async def test_the_fixtures_of_asyncio(narrowboat_aio_locks: aio.Locks, narrowboat_locks: narrowboat.Locks) -> None:
    """They need no plugin's help, and are in one space with those of the sync face."""
    async with narrowboat_aio_locks.lock("item:kettle"):
        assert await asyncio.to_thread(narrowboat_locks.lock("item:kettle").try_acquire) is None
