"""Codecs: what becomes bytes and comes back, and what is refused."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import narrowboat
from narrowboat import codecs
from narrowboat.codecs import BYTES, JSON, TEXT
from narrowboat.errors import BrokerError, ConfigurationError, InvalidArgument

json_data = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=8,
)


@given(json_data)
def test_json_comes_back(data: Any) -> None:
    """Whatever JSON can say."""
    assert JSON.decode(JSON.encode(data)) == data


@given(st.text(st.characters(codec="utf-8")))
def test_text_comes_back(data: Any) -> None:
    """In UTF-8."""
    assert TEXT.decode(TEXT.encode(data)) == data


@given(st.binary())
def test_bytes_come_back(data: Any) -> None:
    """As they are."""
    assert BYTES.decode(BYTES.encode(data)) == data


@pytest.mark.parametrize(
    ("codec", "data"), [(JSON, float("nan")), (JSON, {1, 2}), (JSON, object()), (TEXT, b"x"), (BYTES, "x")]
)
def test_what_cannot_be_encoded_is_refused_and_nothing_is_sent(codec: Any, data: Any) -> None:
    """The codec's own error is kept as the cause."""
    with narrowboat.broker(f"memory://{uuid.uuid4().hex}") as broker:
        queue = broker.queue("orders", codec=codec)

        with pytest.raises(InvalidArgument, match=f"'{codec.name}' cannot encode.* or give the queue another one") as refused:
            queue.publish(data)

        assert refused.value.__cause__ is not None
        assert queue.depth().ready == 0


def test_the_dead_letter_of_a_bad_body_says_which_field_is_wrong() -> None:
    """As the codec's own error does, which is the cause of ours."""

    class Orders:
        name, content_type = "orders", "application/json"

        def encode(self, data: Any, /) -> bytes:
            return JSON.encode(data)

        def decode(self, body: bytes, /) -> Any:
            raise ValueError("1 validation error for Order\nquantity\n  Input should be a valid integer")

    with narrowboat.broker(f"memory://{uuid.uuid4().hex}") as broker:
        orders = broker.queue("orders", codec=Orders())
        orders.publish({"quantity": "x"})

        def handle(message: Any) -> Any:
            try:
                return message.data
            finally:
                orders.stop()

        orders.run(handle, signals=False)
        with broker.queue("orders").dead_letters().consume() as letters:
            letter = letters.receive(5)
            assert letter is not None and letter.dead is not None
            assert "the codec 'orders' cannot decode" in letter.dead.reason
            assert "ValueError: 1 validation error for Order quantity   Input should be a valid integer" in letter.dead.reason


def test_codecs_are_found_by_name() -> None:
    """By the same entry points as anybody's."""
    assert {"bytes", "json", "text"} <= set(codecs.names())
    assert codecs.by_name("json") is JSON


def test_an_unknown_name_tells_the_near_miss() -> None:
    """One error, and what there is."""
    with pytest.raises(ConfigurationError, match="unknown codec 'jsno'. Did you mean 'json'"):
        codecs.by_name("jsno")


@pytest.mark.parametrize("codec", ["json", 3, codecs.Json, object()])
def test_what_is_no_codec_is_refused(codec: Any) -> None:
    """Names and classes too: the API takes objects."""
    with narrowboat.broker("memory://") as broker, pytest.raises(InvalidArgument, match="codec="):
        broker.queue("orders", codec=codec)


def test_a_codec_gives_the_content_type_unless_the_publisher_does() -> None:
    """And a queue without a codec sends none."""
    with narrowboat.broker(f"memory://{uuid.uuid4().hex}") as broker:
        queue = broker.queue("orders", codec=JSON)
        queue.publish({"a": 1})
        queue.publish({"a": 2}, content_type="application/vnd.shop+json")
        broker.queue("plain").publish(b"x")

        with queue.consume() as messages:
            assert [messages.receive(5).content_type for _ in range(2)] == ["application/json", "application/vnd.shop+json"]
        with broker.queue("plain").consume() as messages:
            assert messages.receive(5).content_type is None


def test_what_cannot_be_decoded_is_one_typed_error_and_the_body_stays() -> None:
    """With the codec's error as its cause; the body can still be looked at."""
    with narrowboat.broker(f"memory://{uuid.uuid4().hex}") as broker:
        broker.queue("orders").publish(b"\xff{")
        with broker.queue("orders", codec=JSON).consume() as messages:
            message = messages.receive(5)

            with pytest.raises(BrokerError, match="the codec 'json' cannot decode its 2 bytes") as failed:
                _ = message.data

            assert failed.value.id == message.id
            assert failed.value.__cause__ is not None
            assert message.body == b"\xff{"
            assert message.undecodable
