"""B02 to B04, B09, B10 and B112: content: bodies, headers and data arrive as they were, or are refused before sending."""

from __future__ import annotations

import contextlib
import dataclasses
import string
from typing import Any

from narrowboat import codecs
from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.message_kit import MessageKit, are_same
from narrowboat.conformance.scenario import scenario
from narrowboat.errors import InvalidArgument


@scenario("B02")
async def any_bytes_are_a_body(kit: MessageKit) -> None:
    """Every byte value, the empty body and a body of `body_max` bytes arrive as they are."""
    orders = kit.queue()
    largest = bytes(range(256)) * (kit.broker_claims.body_max // 256 + 1)
    bodies = [bytes(range(256)), b"", b"\x00", b"\xff\xfe\x80", largest[: kit.broker_claims.body_max]]
    for body in bodies:
        await orders.publish(body)
    async with orders.consume(prefetch=2) as messages:
        got = await kit.take(messages, len(bodies), within=30, ack=True)
    are_same(bodies, (m.body for m in got))


@scenario("B02")
async def a_body_beyond_the_maximum_is_refused(kit: MessageKit) -> None:
    """A body of one byte more than `body_max` is an InvalidArgument that says so. Nothing is sent."""
    orders = kit.queue()
    error = await fails(InvalidArgument, orders.publish(bytes(kit.broker_claims.body_max + 1)))
    assert str(kit.broker_claims.body_max) in str(error), f"the error does not name the limit: {error}"
    assert not kit.seen.calls["send"]


@scenario("B03")
async def headers_are_any_text(kit: MessageKit) -> None:
    """Header names and values of any characters arrive equal: all printable ASCII, unicode, slashes, empty values."""
    headers = {
        "plain": "value",
        "a/b//c": "/",
        "with space": "  kept  ",
        "ünïcödé-鍵": "値 🚤",
        "empty": "",
        "Case": "1",
        "case": "2",
        "quotes'\"": "';--\\",
        "newline": "a\nb\r\n\tc",
        string.ascii_letters + string.digits + string.punctuation: string.printable,
    }
    orders = kit.queue()
    await orders.publish(b"x", headers=headers)
    many = {f"h{n}": str(n) for n in range(200)}
    await orders.publish(b"y", headers=many)
    async with orders.consume() as messages:
        got = {m.body: dict(m.headers) for m in await kit.take(messages, 2, ack=True)}
    assert got[b"x"] == headers
    assert got[b"y"] == many


@scenario("B03")
async def headers_that_are_no_text_are_refused(kit: MessageKit) -> None:
    """Headers that are bytes, numbers, lone surrogates, reserved or too large are an InvalidArgument. Nothing is sent."""
    orders = kit.queue()
    bad: list[Any] = [
        {"n": 1},
        {b"n": "v"},
        {"n": b"\xff"},
        {"n": "\ud800"},
        {"": "v"},
        {"narrowboat-id": "mine"},
        {"big": "x" * (kit.broker_claims.headers_max + 1)},
        ["no", "mapping"],
    ]
    for headers in bad:
        await fails(InvalidArgument, orders.publish(b"x", headers=headers), what=repr(headers)[:80])
    assert not kit.seen.calls["send"]


@scenario("B112")
async def foreign_headers_are_ignored(kit: MessageKit) -> None:
    """Headers that a later version or another program adds are delivered, and change nothing else."""
    orders = kit.queue()
    headers = {"x-future-field": "1", "nb2-version": "9", "content-type": "odd", "id": "not the id", "attempt": "99"}
    receipt = await orders.publish(b"x", headers=headers)
    async with orders.consume() as messages:
        message = await kit.one(messages)
        assert (message.id, message.attempt, dict(message.headers)) == (receipt.id, 1, headers)
        await message.ack()


@dataclasses.dataclass
class Order:
    """A type of the program's own."""

    number: int
    items: list[str]


class OrderCodec:
    """A codec for `Order`: number and items in one line."""

    name = "order"
    content_type: str | None = "application/x-order"

    def encode(self, data: Order, /) -> bytes:
        """The line."""
        return f"{data.number}:{','.join(data.items)}".encode()

    def decode(self, body: bytes, /) -> Order:
        """The order."""
        number, _, items = body.decode().partition(":")
        return Order(int(number), items.split(","))


@scenario("B04")
async def codecs_round_trip(kit: MessageKit) -> None:
    """A codec decodes what it has encoded: JSON documents and a program's own types. The content type arrives."""
    broker = kit.broker()
    documents = [{"a": [1, 2.5, None, True, "ü"]}, [], "text", 0, {"deep": {"er": [[]]}}]
    json = broker.queue("json", codec=codecs.JSON)
    for document in documents:
        await json.publish(document)
    async with json.consume() as messages:
        got = await kit.take(messages, len(documents), ack=True)
    assert sorted(map(repr, (m.data for m in got))) == sorted(map(repr, documents))
    assert {m.content_type for m in got} == {"application/json"}

    own = broker.queue("own", codec=OrderCodec())
    await own.publish(Order(7, ["tea", "rope"]))
    async with own.consume() as messages:
        message = await kit.one(messages)
        assert message.data == Order(7, ["tea", "rope"])
        assert message.body == b"7:tea,rope"
        await message.ack()


@scenario("B09")
async def what_cannot_be_encoded_is_not_sent(kit: MessageKit) -> None:
    """A value that the codec refuses, and None, text and other types without a codec, are refused before sending."""
    broker = kit.broker()
    json, plain = broker.queue("json", codec=codecs.JSON), broker.queue("plain")
    for wrong in (object(), float("nan"), {1, 2}):
        await fails(InvalidArgument, json.publish(wrong), what=repr(wrong))
    values: list[Any] = [None, "text", 7, bytearray(b"x"), ["x"]]
    for value in values:
        await fails(InvalidArgument, plain.publish(value), what=repr(value))
    assert not kit.seen.calls["send"]
    await plain.publish(b"good")
    await kit.contains(plain, [b"good"])


@scenario("B10")
async def changing_a_payload_changes_no_redelivery(kit: MessageKit) -> None:
    """A handler changes its data, and a publisher its headers after the publish. No delivery changes."""
    orders = kit.queue(codec=codecs.JSON)
    headers, data = {"v": "1"}, {"items": [1]}
    await orders.publish(data, headers=headers)
    headers["v"], data["items"] = "2", []
    async with orders.consume() as messages:
        first = await kit.one(messages)
        first.data["items"].append("changed")
        with contextlib.suppress(TypeError):
            first.headers["v"] = "changed"
        await first.nack()
        second = await kit.one(messages)
        assert second.data == {"items": [1]}
        assert dict(second.headers) == {"v": "1"}
        await second.ack()
