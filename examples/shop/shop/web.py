"""The shop's web application: `uvicorn shop.web:app`.

Its locks are on NARROWBOAT_LOCKS_URL and its messages on NARROWBOAT_BROKER_URL. Where messages do not leave the process, as in
memory, the worker runs in it; elsewhere the worker has processes of its own. /metrics has its metrics and the queues' depths.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

import narrowboat
from narrowboat import aio
from narrowboat.capabilities import Scope
from narrowboat.telemetry.prometheus import Metrics
from shop.orders import Order
from shop.store import store
from shop.worker import worker

TTL = 30  # seconds
WAIT = 10.0  # seconds that a buyer waits for those before it
STOCK = {"kettle": 40, "rope": 40, "lamp": 40}


@dataclass(frozen=True)
class Shop:
    """What requests need."""

    locks: aio.Locks
    broker: aio.Messaging
    metrics: CollectorRegistry


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open both halves before the first request, and close them after the last one."""
    async with contextlib.AsyncExitStack() as stack:
        registry = CollectorRegistry()
        metrics = Metrics(registry)
        # What every backend must promise is demanded here: a wrong URL ends the start, and no request.
        locks = await stack.enter_async_context(aio.locks(require={"fencing": True, "ttl_min": TTL}, listeners=[metrics]))
        broker = await stack.enter_async_context(aio.broker(require="topics,dead_letters", listeners=[metrics]))
        await asyncio.to_thread(store().create, STOCK)
        metrics.watch(broker.queue("orders"))
        for group in ("mail", "statistics"):  # a topic drops what nobody has subscribed to yet
            subscription = broker.topic("shipped").subscription(group)
            await subscription.declare()
            metrics.watch(subscription)
        app.state.shop = Shop(locks, broker, registry)
        if broker.capabilities.scope is Scope.PROCESS:
            await stack.enter_async_context(worker)
        yield


def shop(request: Request) -> Shop:
    """What the lifespan opened."""
    opened: Shop = request.app.state.shop
    return opened


async def item_lock(item: str, shop: Annotated[Shop, Depends(shop)]) -> AsyncIterator[aio.Held]:
    """Hold the item's lock during the request."""
    async with shop.locks.lock(f"item:{item}", ttl=TTL, timeout=WAIT) as held:
        yield held


app = FastAPI(lifespan=lifespan)


async def charge(order: Order) -> None:
    """Stands for a call of the payment service, with the order's id as its idempotency key."""
    await asyncio.sleep(0.005)


@app.post("/items/{item}/orders", status_code=201)
async def sell(
    item: str,
    shop: Annotated[Shop, Depends(shop)],
    # "function": released before the response is sent, so that a lost lease is an error and not a cut response.
    held: Annotated[aio.Held, Depends(item_lock, scope="function")],
    pieces: Annotated[int, Query(gt=0)] = 1,
) -> Order:
    """Sell some pieces, if there are as many."""
    order = Order(id=uuid.uuid4().hex, item=item, pieces=pieces)
    there = await asyncio.to_thread(store().pieces, item)
    if there is None:
        raise HTTPException(404, "we do not sell that")
    if there < pieces:
        raise HTTPException(409, f"{there} left")
    await charge(order)
    await asyncio.to_thread(store().sell, order, there - pieces, held.token)  # the worker publishes what this has stored
    return order


@app.exception_handler(narrowboat.LockTimeout)
@app.exception_handler(narrowboat.LeaseLost)
@app.exception_handler(narrowboat.Unavailable)
@app.exception_handler(narrowboat.StaleWrite)
async def busy(request: Request, error: Exception) -> JSONResponse:
    """What may work in a moment."""
    return JSONResponse({"detail": "please try again"}, 503, {"Retry-After": "1"})


@app.get("/live")
async def live() -> dict[str, bool]:
    """For a liveness probe: it asks no backend, since a restart of ours does not bring one back."""
    return {"live": True}


@app.get("/ready")
async def ready(shop: Annotated[Shop, Depends(shop)]) -> dict[str, bool]:
    """For a readiness probe: both backends answer."""
    await shop.locks.ping()
    await shop.broker.ping()
    return {"ready": True}


@app.get("/metrics")
async def metrics(shop: Annotated[Shop, Depends(shop)]) -> Response:
    """For Prometheus, from a network that only Prometheus reaches."""
    return Response(generate_latest(shop.metrics), media_type=CONTENT_TYPE_LATEST)
