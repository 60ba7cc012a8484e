"""`Versions` and `Protobuf`: what a codec reads of a content type."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, struct_pb2, timestamp_pb2

import narrowboat
from narrowboat import aio
from narrowboat.codecs import JSON, CloudEvents, InvalidBody, Model, NewerVersion, Protobuf, Versions
from narrowboat.errors import BrokerError, InvalidArgument


@dataclasses.dataclass
class First:
    item: str


@dataclasses.dataclass
class Second:
    item: str
    pieces: int


@dataclasses.dataclass
class Third:
    lines: list[Second]


def to_second(old: First) -> Second:
    return Second(old.item, 1)


def to_third(old: Second) -> Third:
    return Third([old])


TWO = Versions({1: First, 2: Second}, up=to_second)
THREE = Versions[Third]({1: First, 2: Second, 5: Third}, up={1: to_second, 2: to_third})


@pytest.fixture
def broker() -> Any:
    with narrowboat.broker(f"memory://{uuid.uuid4().hex}") as opened:
        yield opened


def read(codec: Any, body: bytes, content_type: str | None) -> Any:
    with narrowboat.broker(f"memory://{uuid.uuid4().hex}") as broker:
        broker.queue("orders").publish(body, content_type=content_type)
        with broker.queue("orders", codec=codec).consume() as messages:
            return messages.receive(5).data


def test_the_newest_version_is_written_and_says_so(broker: Any) -> None:
    orders = broker.queue("orders", codec=THREE)
    orders.publish(Third([Second("kettle", 2)]))
    with orders.consume() as messages:
        message = messages.receive(5)
        assert message.content_type == "application/json; version=5"
        assert message.data == Third([Second("kettle", 2)])


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"item": "rope"}', "application/json; version=1"),
        (b'{"item": "rope", "pieces": 1}', 'application/json; charset=utf-8; version="2"'),
        (b'{"lines": [{"item": "rope", "pieces": 1}]}', "application/json;version=5"),
        (b'{"item": "rope"}', "application/json"),  # published before there were versions
        (b'{"item": "rope"}', None),
    ],
)
def test_an_older_version_is_brought_up_step_by_step(body: bytes, content_type: str | None) -> None:
    assert read(THREE, body, content_type) == Third([Second("rope", 1)])


@pytest.mark.parametrize(
    ("content_type", "said"),
    [
        ("application/json; version=two", "version: 'two' is no number"),
        ("application/json; version=", "version: '' is no number"),
        ("application/json; version=" + "9" * 900, "is no number"),
        ("application/json; version=0", "version: 0 is not known any more; known are 1, 2, 5"),
        ("application/json; version=3", "version: 3 is not known any more"),
        ("application/json; version=2", "pieces: is missing"),
    ],
)
def test_a_version_that_is_none_is_a_verdict(content_type: str, said: str) -> None:
    with pytest.raises(BrokerError) as failed:
        read(THREE, b'{"item": "rope"}', content_type)

    assert isinstance(failed.value.__cause__, InvalidBody)
    assert said in str(failed.value.__cause__)


def test_a_strict_codec_wants_a_version() -> None:
    strict = Versions({1: First, 2: Second}, up=to_second, strict=True)

    with pytest.raises(BrokerError) as failed:
        read(strict, b'{"item": "rope"}', "application/json")

    assert "version: is missing" in str(failed.value.__cause__)


def test_a_newer_version_comes_back_for_a_newer_consumer(broker: Any) -> None:
    """While a fleet is being deployed, an old consumer makes no dead letter of it, and tells why it waits."""
    broker.queue("orders", codec=THREE).publish(Third([]), id="new")
    old = broker.queue("orders", codec=TWO)
    met: list[BaseException] = []

    def handle(message: Any) -> Any:
        try:
            return message.data
        except Exception as error:
            met.append(error)
            raise
        finally:
            old.stop()

    old.run(handle, signals=False)

    (error,) = met
    assert isinstance(error, NewerVersion) and error.retryable
    assert "a message of version 5; this consumer knows 1, 2" in str(error)
    assert old.depth().dead == 0
    with broker.queue("orders", codec=THREE).consume() as messages:
        message = messages.receive(10)
        assert (message.data, message.attempt) == (Third([]), 2)


def test_a_worker_delays_a_newer_version_by_its_own_rule() -> None:
    """By the class of the error. At the last delivery it is a dead letter with that reason."""
    worker = aio.Worker("memory://")

    @worker.queue(
        "orders", codec=TWO, max_deliveries=2, retry=aio.Retry(when={NewerVersion: aio.Retry(first=60, factor=1, jitter=0)})
    )
    async def ship(message: aio.Message[Second]) -> None:
        assert message.data

    async def main() -> None:
        async with worker.test() as test:
            await worker.broker.queue("orders", codec=THREE).publish(Third([]))
            told = await test.drain()

        (retried,) = told.retried
        assert retried.delay == 60
        (dead,) = told.dead
        assert "NewerVersion: Second: a message of version 5" in dead.reason

    asyncio.run(main())


@pytest.mark.parametrize(
    ("versions", "up"),
    [
        ({1: First}, {}),
        ({1: First, 2: Second, 3: Third}, to_second),
        ({1: First, 2: Second}, {2: to_second}),
        ({"1": First, 2: Second}, to_second),
        ({1: First, 2: int}, to_second),
        ({1: First, 2: CloudEvents(JSON, source="/", type="t")}, to_second),
        ({-1: First, 2: Second}, to_second),
    ],
)
def test_versions_that_cannot_work_are_refused(versions: Any, up: Any) -> None:
    with pytest.raises(InvalidArgument):
        Versions(versions, up=up)


def test_an_older_value_is_not_written(broker: Any) -> None:
    with pytest.raises(InvalidArgument, match="expected Second, got First"):
        broker.queue("orders", codec=TWO).publish(First("rope"))


TIME = Protobuf(timestamp_pb2.Timestamp)


def test_a_protobuf_message_comes_back_and_names_its_type(broker: Any) -> None:
    times = broker.queue("times", codec=TIME)
    times.publish(timestamp_pb2.Timestamp(seconds=5))
    with times.consume() as messages:
        message = messages.receive(5)
        assert message.data == timestamp_pb2.Timestamp(seconds=5)
        assert message.content_type == "application/protobuf; proto=google.protobuf.Timestamp"


def test_the_bytes_of_another_type_are_refused_by_the_name() -> None:
    """Read as ours they would say something else."""
    assert read(TIME, b"", None) == timestamp_pb2.Timestamp()
    with pytest.raises(BrokerError) as failed:
        read(TIME, b"", "application/protobuf; proto=google.protobuf.Struct")

    assert "proto is 'google.protobuf.Struct', and has to be google.protobuf.Timestamp" in str(failed.value.__cause__)


@pytest.mark.parametrize("body", [b"\xff", b"\x08", b"\x0a\xff\xff\xff\xff\x0f", b"\x0b" * 10_000])
def test_bytes_that_are_no_protobuf_are_one_error(body: bytes) -> None:
    with pytest.raises(InvalidBody, match="google.protobuf.Timestamp: "):
        TIME.decode(body)


def test_a_required_field_that_is_missing_is_named() -> None:
    with pytest.raises(InvalidBody, match="name_part: is required, and missing"):
        Protobuf(descriptor_pb2.UninterpretedOption.NamePart).decode(b"")


def test_a_strict_protobuf_wants_its_content_type() -> None:
    strict = Protobuf(timestamp_pb2.Timestamp, strict=True)

    assert read(strict, b"", "application/x-protobuf") == timestamp_pb2.Timestamp()
    with pytest.raises(BrokerError):
        read(strict, b"", "application/json")


@pytest.mark.parametrize("given", [timestamp_pb2.Timestamp(), int, First, "Timestamp"], ids=repr)
def test_what_is_no_class_of_messages_is_refused(given: Any) -> None:
    with pytest.raises(InvalidArgument, match="expected a class of messages that protoc has made"):
        Protobuf(given)


def test_another_message_is_not_sent(broker: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"expected google.protobuf.Timestamp, got Struct"):
        broker.queue("times", codec=TIME).publish(struct_pb2.Struct())
    assert Model(First).name == "First"
