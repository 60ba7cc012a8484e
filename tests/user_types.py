"""A user's program as a type checker sees it. It is checked (`tox -e types`) and never run.

What matters: the codec decides what `data` is, on both faces, and `with`, `for` and batches keep that type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_type

from pydantic import BaseModel

import narrowboat
from narrowboat import aio
from narrowboat.codecs import JSON, TEXT, CloudEvents, Codec, Model, Versions


class Order:
    """Something of the user's own."""


class Orders:
    """A codec of the user's own."""

    name = "order"
    content_type = "application/x-order"

    def encode(self, value: Order) -> bytes:
        """The bytes of it."""
        return b""

    def decode(self, body: bytes) -> Order:
        """What they stand for."""
        return Order()


@dataclass
class Parcel:
    """A type that `Model` reads."""

    number: int


class Letter(BaseModel):
    """Another one, of pydantic's."""

    number: int


def grow(letter: Letter) -> Parcel:
    """From one version to the next."""
    return Parcel(letter.number)


def models() -> None:
    """The type that a codec is made of is that of the data, on every way to a message."""
    broker = narrowboat.broker("memory://types")
    parcels = broker.queue("a", codec=Model(Parcel))
    assert_type(parcels, narrowboat.Queue[Parcel])
    parcels.publish(Parcel(1))
    parcels.publish(Letter(number=1))  # type: ignore[arg-type]  # the very thing that this line is to prove
    with parcels.consume() as messages:
        for message in messages:
            assert_type(message.data, Parcel)
    with parcels.dead_letters().consume() as letters:
        assert_type([letter.data for letter in letters], list[Parcel])
    assert_type(parcels.request(Parcel(1), timeout=1).data, Parcel)
    parcels.run(lambda message: assert_type(message.data, Parcel))
    with broker.topic("b", Model(Letter)).subscription("g").consume() as messages_of_topic:
        for batch in messages_of_topic.batches(10):
            assert_type([message.data for message in batch], list[Letter])
    assert_type(broker.queue("c", codec=Versions({1: Letter, 2: Parcel}, up=grow)), narrowboat.Queue[Parcel])
    several = Versions[Parcel]({1: Letter, 2: Letter, 3: Parcel}, up={1: lambda letter: letter, 2: grow})
    assert_type(broker.queue("c", codec=several), narrowboat.Queue[Parcel])
    events = CloudEvents(Model(Parcel), source="/types", type="parcel.sent")
    assert_type(broker.queue("d", codec=events), narrowboat.Queue[Parcel])
    CloudEvents(Model(Parcel), source="/types", type="t", mode="batch")  # type: ignore[arg-type]  # no mode of ours


async def models_on_asyncio() -> None:
    """The same on the other face."""
    async with aio.broker("memory://types") as broker:
        parcels = broker.queue("a", codec=Model(Parcel))
        async with parcels.consume() as messages:
            async for message in messages:
                assert_type(message.data, Parcel)
        assert_type((await parcels.request(Parcel(1), timeout=1)).data, Parcel)
        letters = broker.topic("b", Model(Letter)).subscription("g")
        async with letters.consume() as messages_of_topic:
            async for batch in messages_of_topic.batches(10):
                assert_type([message.data for message in batch], list[Letter])

    worker = aio.Worker("memory://types")

    @worker.queue("a", codec=Model(Parcel))
    async def ship(message: aio.Message[Parcel]) -> None:
        assert_type(message.data, Parcel)

    @worker.subscription("b", "g", codec=Model(Letter), batch=100)
    async def show(messages: Sequence[aio.Message[Letter]]) -> None:
        assert_type(messages[0].data, Letter)

    @worker.queue("c", codec=Model(Parcel))  # type: ignore[arg-type]  # its data is a Parcel
    async def wrong(message: aio.Message[Letter]) -> None: ...

    of_threads = narrowboat.Worker("memory://types")

    @of_threads.queue("a", codec=Model(Parcel))
    def ship_in_threads(message: narrowboat.Message[Parcel]) -> None: ...

    @of_threads.subscription("b", "g", codec=Model(Parcel))  # type: ignore[arg-type]  # its data is a Parcel
    def wrong_in_threads(message: narrowboat.Message[Letter]) -> None: ...


def sync(codec: Codec[Order]) -> None:
    """The sync face."""
    locks = narrowboat.locks("memory://types")
    with locks.lock("a") as held:
        assert_type(held, narrowboat.Held)
        assert_type(held.token, int)
    assert_type(locks.lock("a").try_acquire(), narrowboat.Held | None)

    broker = narrowboat.broker("memory://types")
    assert_type(broker.queue("a"), narrowboat.Queue[bytes])
    assert_type(broker.queue("a", codec=TEXT), narrowboat.Queue[str])
    assert_type(broker.queue("a", codec=codec), narrowboat.Queue[Order])
    broker.queue("a", codec=JSON).publish({"any": "thing"})
    orders = broker.queue("a", codec=Orders())
    orders.publish(Order())
    orders.publish("no order")  # type: ignore[arg-type]  # the very thing that this line is to prove
    with orders.consume() as messages:
        for message in messages:
            assert_type(message.data, Order)
            assert_type(message.body, bytes)
    assert_type(broker.topic("b", codec=TEXT).subscription("g").dead_letters().redrive(), int)


async def asynchronous() -> None:
    """The asyncio face."""
    async with aio.locks("memory://types") as locks, locks.lock("a") as held:
        assert_type(held, aio.Held)
    async with aio.broker("memory://types") as broker:
        orders = broker.queue("a", codec=Orders())
        await orders.publish(Order())
        async with orders.consume() as messages:
            async for message in messages:
                assert_type(message.data, Order)


def a_worker() -> None:
    """Handlers of threads: the codec decides what a message is, `batch` that it is a sequence; a function stays what it is."""
    worker = narrowboat.Worker("memory://types", locks=narrowboat.locks("memory://types"))

    @worker.queue("a", codec=Orders(), concurrency=8, retry=narrowboat.Retry(first=1, drop=(KeyError,)), timeout=30)
    def ship(message: narrowboat.Message[Order]) -> int:
        return message.attempt

    @worker.subscription("b", "g", batch=100, start="earliest")
    def show(messages: Sequence[narrowboat.Message[bytes]]) -> None:
        assert_type(messages[0].data, bytes)

    @worker.queue("c", codec=TEXT)  # type: ignore[arg-type]  # its data is text
    def wrong(message: narrowboat.Message[bytes]) -> None: ...

    @worker.queue("d", concurency=8)  # type: ignore[call-overload, untyped-decorator]  # an option that is not there
    def mistyped(message: narrowboat.Message[bytes]) -> None: ...

    worker.queue("e")(lambda message: assert_type(message.data, bytes))
    assert_type(worker.broker, narrowboat.Messaging)
    assert_type(worker.health().ready, bool)
    worker.run(only=["ship"])


async def a_worker_on_asyncio() -> None:
    """Handlers are coroutine functions, and a plain one is refused."""
    worker = aio.Worker("memory://types")

    @worker.queue("a", codec=Orders())
    async def ship(message: aio.Message[Order]) -> int:
        assert_type(message.data, Order)
        return 5

    @worker.subscription("b", "g", codec=TEXT, batch=100)
    async def show(messages: Sequence[aio.Message[str]]) -> None:
        assert_type(messages[0].data, str)

    @worker.queue("c")  # type: ignore[type-var]  # not awaitable
    def wrong(message: aio.Message[bytes]) -> None: ...

    async with worker:
        assert_type(worker.broker, aio.Messaging)
    await worker.run()
