"""`Model` and `MSGPACK`: what fits comes back, what does not is refused on both sides, and names its field."""

from __future__ import annotations

import dataclasses
import enum
import math
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

import narrowboat
from narrowboat.codecs import MSGPACK, InvalidBody, Json, Model, MsgPack
from narrowboat.errors import BrokerError, InvalidArgument


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Line:
    item: str
    pieces: int = 1


@dataclasses.dataclass
class DataclassOrder:
    id: str
    lines: list[Line]
    paid: Literal["yes", "no"] = "no"
    at: datetime | None = None
    price: Decimal | None = None
    number: uuid.UUID | None = None
    colours: dict[str, Colour] = dataclasses.field(default_factory=dict)


class StructLine(msgspec.Struct):
    item: str
    pieces: int = 1


class StructOrder(msgspec.Struct):
    id: str
    lines: list[StructLine]
    paid: Literal["yes", "no"] = "no"
    at: datetime | None = None
    price: Decimal | None = None
    number: uuid.UUID | None = None
    colours: dict[str, Colour] = {}


class PydanticLine(pydantic.BaseModel):
    item: str
    pieces: int = 1


class PydanticOrder(pydantic.BaseModel):
    id: str
    lines: list[PydanticLine]
    paid: Literal["yes", "no"] = "no"
    at: datetime | None = None
    price: Decimal | None = None
    number: uuid.UUID | None = None
    colours: dict[str, Colour] = {}


@pydantic.dataclasses.dataclass
class PydanticDataclassOrder:
    id: str
    lines: list[Line]
    paid: Literal["yes", "no"] = "no"
    at: datetime | None = None
    price: Decimal | None = None
    number: uuid.UUID | None = None
    colours: dict[str, Colour] = dataclasses.field(default_factory=dict)


KINDS: list[tuple[Any, Any]] = [
    (DataclassOrder, Line),
    (StructOrder, StructLine),
    (PydanticOrder, PydanticLine),
    (PydanticDataclassOrder, Line),
]
each_kind = pytest.mark.parametrize(("order", "line"), KINDS, ids=lambda kind: kind.__name__)


@pytest.fixture
def broker() -> Any:
    with narrowboat.broker(f"memory://{uuid.uuid4().hex}") as opened:
        yield opened


def dead_letter(broker: Any, body: bytes, codec: Any, **options: Any) -> str:
    """The reason for which `run` makes a dead letter of `body`, and of nothing behind it."""
    orders = broker.queue("orders", codec=codec)
    broker.queue("orders").publish(body, **options)
    broker.queue("orders").publish(b"the end")
    seen = []

    def handle(message: Any) -> None:
        if message.body == b"the end":
            orders.stop()
            return
        seen.append(message.data)

    orders.run(handle, signals=False)
    assert seen == []
    with broker.queue("orders").dead_letters().consume() as letters:
        letter = letters.receive(5)
        assert letter.body == body
        reason: str = letter.dead.reason
        return reason


@each_kind
def test_a_value_of_the_type_comes_back(broker: Any, order: Any, line: Any) -> None:
    """With all that a document of JSON does not have by itself: instants, decimals, enums, types within types."""
    orders = broker.queue("orders", codec=Model(order))
    sent = order(
        id="1",
        lines=[line(item="kettle", pieces=3)],
        paid="yes",
        at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        price=Decimal("12.50"),
        number=uuid.UUID(int=7),
        colours={"lid": Colour.RED},
    )
    orders.publish(sent)

    with orders.consume() as messages:
        message = messages.receive(5)
        assert message.data == sent
        assert type(message.data) is order
        assert message.content_type == "application/json"


@each_kind
@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"id": "1", "lines": [{"item": "a"}, {"item": "b", "pieces": "many"}]}', "pieces"),
        (b'{"id": "1", "lines": [{"pieces": 1}]}', "item"),
        (b'{"lines": []}', "id"),
        (b'{"id": "1", "lines": [], "at": "yesterday"}', "at"),
        (b'{"id": "1", "lines": [], "paid": "perhaps"}', "paid"),
        (b'{"id": "1", "lines": [], "colours": {"lid": "loud"}}', "colours"),
    ],
)
def test_a_body_that_does_not_fit_is_a_dead_letter_that_names_the_field(
    broker: Any, order: Any, line: Any, body: bytes, field: str
) -> None:
    reason = dead_letter(broker, body, Model(order))

    assert f"codec '{order.__name__}' cannot decode" in reason
    assert f"{field}" in reason.partition("InvalidBody: ")[2]


@each_kind
def test_the_path_leads_to_the_field(order: Any, line: Any) -> None:
    with pytest.raises(InvalidBody) as refused:
        Model(order).decode(b'{"id": "1", "lines": [{"item": "a"}, {"item": "b", "pieces": "many"}]}')

    (path,) = refused.value.fields
    assert path.replace("...", "1").replace("[", ".").replace("]", "") in (
        "lines.1.pieces",
        "lines.1.1.pieces",
        "lines..pieces",
    )


@each_kind
def test_a_value_that_does_not_fit_is_not_sent(broker: Any, order: Any, line: Any) -> None:
    """Another type, and one of ours whose fields have been filled with what no consumer would read."""
    orders = broker.queue("orders", codec=Model(order))
    wrong = order(id="1", lines=[])
    wrong.lines = [line(item="kettle")]
    wrong.lines[0].pieces = "many"

    with pytest.raises(InvalidArgument, match=f"expected {order.__name__}, got dict"):
        orders.publish({"id": "1"})
    with pytest.raises(InvalidArgument, match=r"InvalidBody: .*pieces.*; nothing was sent"):
        orders.publish(wrong)

    assert orders.depth().ready == 0


@each_kind
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"id":' * 100_000,
        b'{"id": NaN, "lines": []}',
        b'{"id": "1", "lines": [], "price": NaN}',
        b'{"id": "1", "lines": [{"item": "a", "pieces": ' + b"9" * 10_000 + b"}]}",
        b'{"id": "\xff", "lines": []}',
        b'{"id": "\\ud800", "lines": []}',
        '{"id": "1", "lines": []}'.encode("utf-16"),
        b'{"id": "1", "lines": []} {}',
        b'{"id": "1", "lines": [' + b'{"x": 1},' * 2_000 + b"{}]}",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_a_hostile_body_is_one_error_of_bounded_length(order: Any, line: Any, body: bytes) -> None:
    with pytest.raises(InvalidBody) as refused:
        Model(order).decode(body)

    assert 0 < len(str(refused.value)) < 900


@dataclasses.dataclass
class DataclassPrice:
    price: float | None = None
    more: dict[str, list[float | None]] = dataclasses.field(default_factory=dict)


class StructPrice(msgspec.Struct):
    price: float | None = None
    more: dict[str, list[float | None]] = {}


class PydanticPrice(pydantic.BaseModel):
    price: float | None = None
    more: dict[str, list[float | None]] = {}


each_price = pytest.mark.parametrize("price", [DataclassPrice, StructPrice, PydanticPrice], ids=lambda kind: kind.__name__)


@each_price
def test_what_is_no_number_is_not_written_as_null(broker: Any, price: Any) -> None:
    """Where a field may be missing, its readers would take null for that."""
    prices = broker.queue("prices", codec=Model(price))
    for number in (math.nan, math.inf, -math.inf):
        for value, path in ((price(price=number), "price"), (price(more={"a": [1.0, number]}), r"more\.a\[1\]")):
            with pytest.raises(InvalidArgument, match=f"InvalidBody: {path}: .*nothing was sent"):
                prices.publish(value)
    assert prices.depth().ready == 0

    prices.publish(price(price=None, more={"a": [None, 1e300]}))
    assert prices.depth().ready == 1


@each_price
@pytest.mark.parametrize("number", [b"1e400", b"-1E+400", b"1e0400", b"9" * 400, b"9" * 250 + b"e99"])
def test_a_number_beyond_all_is_refused_and_not_infinite(price: Any, number: bytes) -> None:
    with pytest.raises(InvalidBody) as refused:
        Model(price).decode(b'{"more": {"a": [' + number + b"]}}")

    assert "more" in refused.value.fields[0]
    assert Model(price).decode(b'{"price": 0.' + b"1" * 300 + b"}").price == pytest.approx(1 / 9)


def test_names_in_the_body_are_cut() -> None:
    class Shut(msgspec.Struct, forbid_unknown_fields=True):
        id: str

    with pytest.raises(InvalidBody) as refused:
        Model(Shut).decode(b'{"' + b"x" * 5_000 + b'": 1}')

    assert len(str(refused.value)) < 200


@given(st.binary(max_size=40))
def test_no_bytes_are_more_than_refused(body: bytes) -> None:
    for codec in (Model(DataclassOrder), Model(PydanticOrder), MSGPACK):
        try:
            codec.decode(body)
        except InvalidBody:
            pass


def test_aliases_are_written_as_they_are_read() -> None:
    class Named(pydantic.BaseModel):
        number: int = pydantic.Field(alias="orderNumber")

    codec = Model(Named)
    assert codec.encode(Named(orderNumber=4)) == b'{"orderNumber":4}'
    assert codec.decode(b'{"orderNumber":4}') == Named(orderNumber=4)


@pytest.mark.parametrize("model", [int, dict, "Order", DataclassOrder("1", []), object], ids=repr)
def test_what_is_no_such_type_is_refused(model: Any) -> None:
    with pytest.raises(InvalidArgument, match="expected a class: a pydantic model, a dataclass or a msgspec.Struct"):
        Model(model)


def test_a_type_that_its_library_cannot_read_is_refused_at_once() -> None:
    @dataclasses.dataclass
    class Odd:
        value: int | Line | StructLine

    with pytest.raises(InvalidArgument, match=r"Model\(Odd\): it cannot be read"):
        Model(Odd)


@pytest.mark.parametrize(
    ("codec", "body"), [(Model(DataclassOrder, strict=True), b'{"id": "1", "lines": []}'), (Json(strict=True), b"{}")]
)
def test_a_strict_codec_wants_its_content_type(broker: Any, codec: Any, body: bytes) -> None:
    """A type that ends like +json is one, parameters do not matter; a missing or another one is a dead letter."""
    orders = broker.queue("good", codec=codec)
    for good in ("application/json", "Application/JSON; charset=utf-8", "application/vnd.shop+json"):
        broker.queue("good").publish(body, content_type=good)
    with orders.consume() as messages:
        assert all(messages.receive(5).data is not None for _ in range(3))

    assert "content type: is missing, and has to be application/json" in dead_letter(broker, body, codec)


def test_a_strict_codec_refuses_another_content_type(broker: Any) -> None:
    reason = dead_letter(broker, b'{"id": "1", "lines": []}', Model(DataclassOrder, strict=True), content_type="text/plain")

    assert "content type: is 'text/plain', and has to be application/json" in reason


def test_a_codec_that_is_not_strict_reads_what_fits(broker: Any) -> None:
    broker.queue("orders").publish(b'{"id": "1", "lines": []}', content_type="text/plain")
    with broker.queue("orders", codec=Model(DataclassOrder)).consume() as messages:
        assert messages.receive(5).data == DataclassOrder("1", [])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_msgpack_comes_back(data: Any) -> None:
    try:
        str(data).encode()
    except UnicodeEncodeError:
        return  # half of a surrogate pair is no text
    assert MSGPACK.decode(MSGPACK.encode(data)) == data


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x01\x02", b"\x91" * 100_000, b"\xdf\xff\xff\xff\xff", b"\xa1\xff"])
def test_hostile_msgpack_is_one_error(body: bytes) -> None:
    with pytest.raises(InvalidBody):
        MSGPACK.decode(body)


def test_a_strict_msgpack_reads_its_content_types(broker: Any) -> None:
    orders = broker.queue("orders", codec=MsgPack(strict=True))
    orders.publish({"a": b"\xff"})
    orders.publish([1], content_type="application/vnd.msgpack")
    orders.publish([1], content_type="application/json")
    with orders.consume() as messages:
        assert [messages.receive(5).data for _ in range(2)] == [{"a": b"\xff"}, [1]]
        with pytest.raises(BrokerError, match="cannot decode"):
            _ = messages.receive(5).data


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)


A_DATACLASS = """
import dataclasses
from narrowboat.codecs import Model
@dataclasses.dataclass
class Order:
    id: str
Model(Order)
"""


@pytest.mark.parametrize("script", ["from narrowboat.codecs import MSGPACK", A_DATACLASS])
def test_a_library_that_is_missing_is_told_before_any_message(script: str) -> None:
    """Found by a message, it would make dead letters of a whole queue."""
    done = run("import sys; sys.modules['msgspec'] = None\n" + script)

    assert "ConfigurationError" in done.stderr
    assert "pip install --upgrade '.[msgspec]' in a clone" in done.stderr


def test_only_what_the_type_needs_is_loaded() -> None:
    done = run(
        "import sys, narrowboat, narrowboat.codecs\n"
        "assert not {'narrowboat.codecs.model', 'msgspec', 'pydantic'} & set(sys.modules)\n"
        f"{A_DATACLASS}assert 'pydantic' not in sys.modules\n"
    )

    assert done.returncode == 0, done.stderr
