"""A worker with each codec, for the tests of `narrowboat asyncapi`: no server is where its URL leads."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

import msgspec
import pydantic
from google.protobuf import timestamp_pb2

import narrowboat
from narrowboat import aio
from narrowboat.codecs import JSON, MSGPACK, TEXT, CloudEvents, Model, Protobuf, Versions
from narrowboat.electing import Term

worker = narrowboat.Worker("redis://127.0.0.1:1")
on_asyncio = aio.Worker("redis://127.0.0.1:1")


class Line(pydantic.BaseModel):
    item: str
    pieces: pydantic.PositiveInt = 1
    price: Decimal | None = None


class Order(pydantic.BaseModel):
    id: str
    lines: list[Line]
    paid: Literal["yes", "no"] = "no"
    at: datetime | None = None
    corner: tuple[int, str] | None = None
    part_of: Order | None = None


@dataclasses.dataclass
class OldOrder:
    id: str


class StructOrder(msgspec.Struct):
    id: str
    parts: list[StructOrder] = []


def others() -> Any:
    """An Order of another module, with another Line."""

    @dataclasses.dataclass
    class Line:
        text: str

    @dataclasses.dataclass
    class Order:
        line: Line

    Order.__annotations__["line"] = Line
    return Order


@worker.queue("orders", codec=Model(Order))
def ship(message: narrowboat.Message[Order]) -> None:
    """Ship what was sold.

    Once for each id.
    """


@worker.subscription("shipped", "mail", codec=Model(Order))
def mail(message: narrowboat.Message[Order]) -> None: ...


@worker.subscription("shipped", "count", codec=Model(Order), batch=10)
def count(messages: Sequence[narrowboat.Message[Order]]) -> None: ...


def take(message: Any) -> None: ...


VERSIONS = Versions({1: OldOrder, 2: StructOrder}, up=lambda old: StructOrder(old.id))

for name, codec in {
    "plain": None,
    "a name with spaces": JSON,
    "texts": TEXT,
    "packed": MSGPACK,
    "times": Protobuf(timestamp_pb2.Timestamp),
    "others": Model(others()),
    "structs": Model(StructOrder),
    "versions": VERSIONS,
    "events": CloudEvents(Model(StructOrder), source="/shop", type="shop.order"),
    "documents": CloudEvents(Model(StructOrder), source="/shop", type="shop.order", mode="structured", strict=True),
    "documents-of-text": CloudEvents(TEXT, source="/shop", type="shop.text", mode="structured"),
    "versions-in-events": CloudEvents(VERSIONS, source="/shop", type="shop.order", mode="structured"),
}.items():
    worker.queue(name, codec=codec)(take)


@worker.every(60)
def nightly(tick: narrowboat.Tick) -> None: ...


@worker.elected("leader")
def lead(term: Term) -> None: ...


@on_asyncio.queue("orders", codec=Model(Order))
async def ship_on_asyncio(message: aio.Message[Order]) -> None: ...
