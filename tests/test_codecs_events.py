"""`CloudEvents`: what is written is what the specification says, and what others wrote is read."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import uuid
from datetime import datetime
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import narrowboat
from narrowboat import aio
from narrowboat.codecs import BYTES, JSON, TEXT, CloudEvents, InvalidBody, Model, Versions
from narrowboat.errors import BrokerError, InvalidArgument


@dataclasses.dataclass
class Order:
    item: str
    pieces: int = 1


@dataclasses.dataclass
class OldOrder:
    item: str


Mode = Literal["binary", "structured"]
MODES: tuple[Mode, ...] = ("binary", "structured")
KETTLE = Order("kettle", 3)
ATTRIBUTES = {"specversion": "1.0", "id": "7", "source": "/other", "type": "other.order"}


def events(mode: Mode = "binary", **options: Any) -> CloudEvents[Order]:
    return CloudEvents(Model(Order), source="/shop", type="shop.order.placed", mode=mode, **options)


@pytest.fixture
def broker() -> Any:
    with narrowboat.broker(f"memory://{uuid.uuid4().hex}") as opened:
        yield opened


def one(queue: Any) -> Any:
    with queue.consume() as messages:
        message = messages.receive(5)
        message.ack()
        return message


@pytest.mark.parametrize("mode", MODES)
def test_an_event_comes_back_and_says_what_the_message_says(broker: Any, mode: Mode) -> None:
    """Its id and time are the message's, its partition key is the key; what is no attribute stays a header."""
    codec = events(mode)
    orders = broker.queue("orders", codec=codec)
    receipt = orders.publish(KETTLE, key="42", id="order-1", headers={"ce_subject": "42", "trace": "abc"})

    message = one(orders)

    assert receipt.id == message.id == "order-1"
    assert message.data == KETTLE
    found = codec.attributes(message)
    assert datetime.fromisoformat(found.pop("time")).timestamp() == pytest.approx(message.published_at, abs=1e-3)
    found.pop("datacontenttype", None)
    assert found == {
        "specversion": "1.0",
        "id": "order-1",
        "source": "/shop",
        "type": "shop.order.placed",
        "partitionkey": "42",
        "subject": "42",
    }
    assert message.headers["trace"] == "abc"


def test_the_binary_mode_has_attributes_in_headers_and_the_data_as_it_is(broker: Any) -> None:
    """In the names of the binding of `ce_`, which has the content type in a header as well."""
    broker.queue("orders", codec=events()).publish(KETTLE)

    message = one(broker.queue("orders"))

    assert message.body == b'{"item":"kettle","pieces":3}'
    assert message.content_type == message.headers["content-type"] == "application/json"
    assert {name for name in message.headers if name.startswith("ce_")} == {
        "ce_specversion",
        "ce_id",
        "ce_source",
        "ce_type",
        "ce_time",
    }


def test_another_binding_has_another_prefix(broker: Any) -> None:
    codec = events(prefix="cloudEvents_")
    broker.queue("orders", codec=codec).publish(KETTLE)

    message = one(broker.queue("orders"))

    assert message.headers["cloudEvents_type"] == "shop.order.placed"
    assert "content-type" not in message.headers
    assert codec.attributes(message)["type"] == "shop.order.placed"


def test_the_structured_mode_is_one_document(broker: Any) -> None:
    broker.queue("orders", codec=events("structured")).publish(KETTLE, id="1")

    message = one(broker.queue("orders"))

    assert message.content_type == "application/cloudevents+json"
    assert not [name for name in message.headers if name.startswith("ce_")]
    event = json.loads(message.body)
    assert event["data"] == {"item": "kettle", "pieces": 3}
    assert (event["id"], event["datacontenttype"], event["specversion"]) == ("1", "application/json", "1.0")


@pytest.mark.parametrize(("codec", "data"), [(BYTES, b"\xff\x00"), (TEXT, "ä")])
@pytest.mark.parametrize("mode", MODES)
def test_data_that_is_no_json_goes_as_well(broker: Any, mode: Mode, codec: Any, data: Any) -> None:
    queue = broker.queue("orders", codec=CloudEvents(codec, source="/shop", type="t", mode=mode))
    queue.publish(data)

    assert one(queue).data == data


@pytest.mark.parametrize("data", [b'{}, "type": "forged"', b"", b"NaN", b"\xff", '"\u00e4"'.encode("utf-16"), b"{} {}"])
def test_data_that_is_said_to_be_json_and_is_none_is_not_put_into_a_document(broker: Any, data: bytes) -> None:
    """Bytes from elsewhere, which would end the data and go on with attributes of their own."""
    queue = broker.queue("orders", codec=CloudEvents(BYTES, source="/shop", type="t", mode="structured"))

    with pytest.raises(InvalidArgument, match="nothing was sent"):
        queue.publish(data, content_type="application/json")

    queue.publish(b' {"a": 1}\n', content_type="application/json")
    assert json.loads(one(queue).data) == {"a": 1}


@pytest.mark.parametrize("mode", MODES)
def test_versions_go_into_events(broker: Any, mode: Mode) -> None:
    """The version is in the content type of the data."""
    versions = Versions({1: OldOrder, 2: Order}, up=lambda old: Order(old.item, 7))
    queue = broker.queue("orders", codec=CloudEvents(versions, source="/shop", type="t", mode=mode))
    queue.publish(KETTLE)
    old = CloudEvents(Model(OldOrder), source="/shop", type="t", mode=mode)
    broker.queue("orders", codec=old).publish(OldOrder("rope"), content_type="application/json; version=1")

    with queue.consume() as messages:
        assert [messages.receive(5).data for _ in range(2)] == [KETTLE, Order("rope", 7)]


@pytest.mark.parametrize("prefix", ["ce_", "ce-", "cloudEvents_", "cloudEvents:", "Ce-"])
def test_events_of_other_programs_are_read_by_any_prefix(broker: Any, prefix: str) -> None:
    headers = {f"{prefix}{name}": value for name, value in ATTRIBUTES.items()}
    broker.queue("orders").publish(b'{"item": "rope"}', headers={**headers, "content-type": "application/json"})

    codec = events()
    message = one(broker.queue("orders", codec=codec))

    assert message.data == Order("rope")
    assert codec.attributes(message) == ATTRIBUTES


@pytest.mark.parametrize(
    "more",
    [
        {"data": {"item": "rope", "pieces": 1}},
        {"data_base64": base64.b64encode(b'{"item": "rope"}').decode()},
        {"data": {"item": "rope"}, "datacontenttype": "application/vnd.shop+json", "extension": 5, "none": None},
        {"data": '{"item": "rope"}', "datacontenttype": "text/plain"},
    ],
)
def test_documents_of_other_programs_are_read(broker: Any, more: dict[str, Any]) -> None:
    """Also where the content type of the message is in a header alone."""
    body = json.dumps({**ATTRIBUTES, **more}).encode()
    broker.queue("orders").publish(body, headers={"content-type": "application/cloudevents+json; charset=utf-8"})

    codec = events()
    message = one(broker.queue("orders", codec=codec))

    assert message.data == Order("rope")
    assert {**codec.attributes(message), **ATTRIBUTES} == codec.attributes(message)


def refused(body: bytes, headers: dict[str, str], content_type: str | None, **options: Any) -> str:
    """What the codec says of it, which is the reason of the dead letter."""
    with narrowboat.broker(f"memory://{uuid.uuid4().hex}") as broker:
        broker.queue("orders").publish(body, headers=headers, content_type=content_type)
        with broker.queue("orders", codec=events(**options)).consume() as messages:
            with pytest.raises(BrokerError, match="cannot decode") as failed:
                _ = messages.receive(5).data
            assert isinstance(failed.value.__cause__, InvalidBody)
            return str(failed.value.__cause__)


STRUCTURED = "application/cloudevents+json"


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({**ATTRIBUTES, "data": {"item": "a", "pieces": "many"}}, "pieces: "),
        (ATTRIBUTES, "data: is missing"),
        ({**ATTRIBUTES, "data": None}, "Expected"),
        ({**ATTRIBUTES, "id": ""}, "id: is missing"),
        ({"specversion": "1.0", "data": 1}, "id: is missing; source: is missing; type: is missing"),
        ({**ATTRIBUTES, "specversion": "0.3", "data": 1}, "specversion: is '0.3'"),
        ({**ATTRIBUTES, "data_base64": "no base64!"}, "data_base64: "),
        ({**ATTRIBUTES, "data_base64": 5}, "data_base64: "),
        ({**ATTRIBUTES, "data": 5, "datacontenttype": 5}, "datacontenttype: is no text"),
        ([], "no JSON object"),
    ],
)
def test_a_document_that_does_not_fit_names_what_is_wrong(event: Any, said: str) -> None:
    assert said in refused(json.dumps(event).encode(), {}, STRUCTURED)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"data": ' + b"[" * 100_000, b'{"data":' * 100_000])
def test_a_hostile_document_is_one_error(body: bytes) -> None:
    assert refused(body, {}, STRUCTURED)


def test_a_batch_is_refused() -> None:
    assert "content type: is that of a batch" in refused(b"[]", {}, "application/cloudevents-batch+json")


@given(
    st.binary(max_size=30),
    st.dictionaries(st.sampled_from(["ce_id", "ce_type", "ce_source", "ce_specversion"]), st.sampled_from(["1.0", "x", ""])),
    st.sampled_from([None, STRUCTURED, "application/json", ";;;", '; version="']),
)
def test_no_message_is_more_than_refused(body: bytes, headers: dict[str, str], content_type: str | None) -> None:
    @dataclasses.dataclass
    class Head:
        id, key, published_at = "1", None, None
        headers: dict[str, str]
        content_type: str | None

    try:
        events().decode_message(body, Head(headers, content_type))
    except InvalidBody:
        pass


def test_what_is_no_event_is_data_alone_unless_the_codec_is_strict(broker: Any) -> None:
    """So a queue may go over to events while it has other messages."""
    broker.queue("orders").publish(b'{"item": "rope"}')
    assert one(broker.queue("orders", codec=events())).data == Order("rope")

    assert "specversion: is missing: this message is no event" in refused(b'{"item": "rope"}', {}, None, strict=True)


def test_a_strict_codec_wants_its_type_of_event() -> None:
    body = json.dumps({**ATTRIBUTES, "data": {"item": "rope"}}).encode()

    assert "type: is 'other.order', and has to be 'shop.order.placed'" in refused(body, {}, STRUCTURED, strict=True)


@pytest.mark.parametrize("header", ["ce_id", "ce_time", "ce_data", "ce_Subject", "ce_", "ce_a-b"])
@pytest.mark.parametrize("mode", MODES)
def test_a_header_that_cannot_be_an_attribute_is_refused(broker: Any, header: str, mode: Mode) -> None:
    orders = broker.queue("orders", codec=events(mode))

    with pytest.raises(InvalidArgument, match=f"header '{header}': an attribute has.*nothing was sent"):
        orders.publish(KETTLE, headers={header: "x"})

    assert orders.depth().ready == 0


@pytest.mark.parametrize("mode", MODES)
def test_what_the_data_s_codec_refuses_is_not_sent(broker: Any, mode: Mode) -> None:
    orders = broker.queue("orders", codec=events(mode))

    for wrong in ({"item": "rope"}, None):
        with pytest.raises(InvalidArgument):
            orders.publish(wrong)

    assert orders.depth().ready == 0


@pytest.mark.parametrize(
    "options",
    [
        {"source": ""},
        {"type": 5},
        {"mode": "batch"},
        {"prefix": "x-"},
        {"codec": Model},
        {"codec": CloudEvents(JSON, source="/", type="t")},
    ],
)
def test_what_cannot_be_an_event_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=f"{next(iter(options))}="):
        CloudEvents(**{"codec": JSON, "source": "/", "type": "t", **options})


@pytest.mark.parametrize("mode", MODES)
def test_every_way_to_publish_makes_events(broker: Any, mode: Mode) -> None:
    """Many at once, a request and its reply; each has an id of its own."""
    codec = events(mode)
    orders = broker.queue("orders", codec=codec)
    orders.publish_many([KETTLE, narrowboat.Outbound(KETTLE, key="1"), KETTLE])
    with orders.consume() as messages:
        found = [codec.attributes(messages.receive(5)) for _ in range(3)]
    assert len({event["id"] for event in found}) == 3
    assert [event.get("partitionkey") for event in found] == [None, "1", None]


@pytest.mark.parametrize("mode", MODES)
def test_a_request_and_its_reply_are_events_on_asyncio(mode: Mode) -> None:
    async def main() -> None:
        async with aio.broker(f"memory://{uuid.uuid4().hex}") as broker:
            quotes = broker.queue("quotes", codec=events(mode))
            async with quotes.consume() as messages, asyncio.TaskGroup() as group:
                asking = group.create_task(quotes.request(KETTLE, timeout=10))
                message = await messages.receive(10)
                assert message is not None and message.data == KETTLE
                await message.reply(Order("kettle", 4))
                await message.ack()
                reply = await asking
                assert reply.data == Order("kettle", 4)
                assert quotes._core.codec.attributes(reply)["type"] == "shop.order.placed"

    asyncio.run(main())


@pytest.mark.parametrize("mode", MODES)
def test_a_dead_letter_that_is_redriven_is_the_same_event(broker: Any, mode: Mode) -> None:
    codec = events(mode)
    orders = broker.queue("orders", codec=codec)
    orders.publish(KETTLE, key="42")
    with orders.consume() as messages:
        message = messages.receive(5)
        before = codec.attributes(message)
        message.reject("no kettles")
    assert orders.dead_letters().redrive() == 1

    after = one(orders)

    assert codec.attributes(after) == before
    assert after.data == KETTLE
