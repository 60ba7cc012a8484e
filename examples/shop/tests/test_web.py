"""The web application: with FastAPI's TestClient, and on one loop with the test by pytest-asyncio or anyio."""

from __future__ import annotations

import asyncio

import httpx2
import pytest
from fastapi.testclient import TestClient

import narrowboat
from shop import web
from shop.orders import ORDER, Order
from shop.store import Store


def test_a_sale_is_shipped(client: TestClient, environment: Store, narrowboat_url: str) -> None:
    """In memory the worker runs within the application."""
    with (
        narrowboat.broker(narrowboat_url) as broker,
        broker.topic("shipped", ORDER).subscription("this test").consume() as shipped,
    ):
        sold = Order.model_validate(client.post("/items/kettle/orders?pieces=3").raise_for_status().json())
        message = shipped.receive(timeout=10)
        assert message is not None and message.data == sold
    assert environment.pieces("kettle") == 7 and environment.unshipped() == []


def test_a_request_waits_for_the_lock_and_no_longer_than_it_may(
    client: TestClient, narrowboat_locks: narrowboat.Locks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else holds the item; the others are for sale."""
    monkeypatch.setattr(web, "WAIT", 0.05)
    with narrowboat_locks.lock("item:kettle"):
        answer = client.post("/items/kettle/orders")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert client.post("/items/unknown/orders").status_code == 404
    assert client.post("/items/kettle/orders").status_code == 201


def test_what_is_not_there_is_not_sold(client: TestClient) -> None:
    """The answer says how many there are."""
    assert client.post("/items/kettle/orders?pieces=11").json() == {"detail": "10 left"}
    assert client.post("/items/kettle/orders?pieces=0").status_code == 422


def test_a_holder_that_lost_its_lock_changes_nothing(
    client: TestClient, environment: Store, narrowboat_locks: narrowboat.Locks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stopped between its look and its write; the fencing token of the one who came meanwhile is newer."""

    async def slow(order: Order) -> None:
        (holder,) = narrowboat_locks.holders("item:kettle")
        narrowboat_locks.evict("item:kettle", holder.token)
        with narrowboat_locks.lock("item:kettle") as other:
            environment.sell(Order(id="other", item="kettle", pieces=10), 0, other.token)

    monkeypatch.setattr(web, "charge", slow)
    assert client.post("/items/kettle/orders").status_code == 503
    assert environment.sales() == {"kettle": 10}


def test_both_backends_are_asked_by_readiness_alone(client: TestClient) -> None:
    """As an orchestrator does."""
    assert client.get("/ready").json() == {"ready": True}
    assert client.get("/live").json() == {"live": True}


def test_a_backend_that_promises_too_little_ends_the_start(environment: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """ZooKeeper's shortest ttl is longer than five seconds: nothing is sent to find that out."""
    monkeypatch.setenv("NARROWBOAT_LOCKS_URL", "zookeeper://127.0.0.1:1")
    monkeypatch.setattr(web, "TTL", 5)
    with pytest.raises(narrowboat.Unsupported, match="ttl_min=5"), TestClient(web.app):
        pass


async def rush(buyers: int) -> list[int]:
    """All at once, on the loop of the test."""
    transport = httpx2.ASGITransport(web.app)
    async with (
        web.app.router.lifespan_context(web.app),
        httpx2.AsyncClient(transport=transport, base_url="http://shop") as buyer,
    ):
        answers = await asyncio.gather(*(buyer.post("/items/kettle/orders") for _ in range(buyers)))
    return sorted(answer.status_code for answer in answers)


@pytest.mark.asyncio
async def test_ten_of_thirty_buyers_get_one_of_ten_kettles(environment: Store) -> None:
    assert await rush(30) == [201] * 10 + [409] * 20
    assert environment.pieces("kettle") == 0


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_same_by_anyio(environment: Store) -> None:
    assert await rush(30) == [201] * 10 + [409] * 20
