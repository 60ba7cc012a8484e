"""Names, bodies, headers and options: what is refused, in one typed error before anything is sent."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, Never

import pytest
from hypothesis import given
from hypothesis import strategies as st

import narrowboat
from narrowboat._engine.checks import text as check_text
from narrowboat._messages.checks import RESERVED_PREFIX, check_headers, check_reason
from narrowboat.contract import Outgoing, Source
from narrowboat.errors import InvalidArgument, Unsupported
from narrowboat.layers.passing import PassingBroker
from narrowboat.messaging import Messaging

WRONG_TEXT = ["", "x" * 1001, "a\nb", "a\x00", "a\x7f", "\ud800", 3, None, b"x"]
WRONG_SECONDS = [-1, math.nan, math.inf, "5", True, [], timedelta(seconds=-1)]


class Untouched(PassingBroker):
    """A driver that must not be asked anything."""

    def send(self, messages: Sequence[Outgoing]) -> Never:
        raise AssertionError(f"sent {messages}")

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Never:
        raise AssertionError(f"opened {source}")


@pytest.fixture
def broker() -> Iterator[Messaging]:
    with narrowboat.broker(f"memory://{uuid.uuid4().hex}", wrap=Untouched) as broker:
        yield broker


@pytest.mark.parametrize("name", [*WRONG_TEXT, "orders.dead", "orders.retry", "a.delayed"])
def test_names_that_cannot_be(broker: Messaging, name: str) -> None:
    """Of queues and of topics."""
    with pytest.raises(InvalidArgument, match="queue name"):
        broker.queue(name)
    with pytest.raises(InvalidArgument, match="topic name"):
        broker.topic(name)


@pytest.mark.parametrize("name", ["x" * 1000, "a b", "ä/ö\\", "dead", ".dead", "orders.deadly", "🚤", "UPPER"])
def test_names_that_can_be(broker: Messaging, name: str) -> None:
    """Whatever is text; escaping is the backend's business."""
    assert broker.queue(name).name == name


def test_the_name_of_dead_letters_tells_how_to_reach_them(broker: Messaging) -> None:
    """The near miss."""
    with pytest.raises(InvalidArgument, match=r"queue\('orders'\).dead_letters\(\)"):
        broker.queue("orders.dead")


@pytest.mark.parametrize("group", [*WRONG_TEXT, "a.b", "dead", "retry", "delayed"])
def test_groups_that_cannot_be(broker: Messaging, group: Any) -> None:
    """A group has no dot and is none of the reserved endings, so that no two paths meet."""
    with pytest.raises(InvalidArgument, match="group name"):
        broker.topic("prices").subscription(group)


@pytest.mark.parametrize("start", ["first", "", None, 3])
def test_a_start_is_latest_or_earliest(broker: Messaging, start: Any) -> None:
    """And nothing else."""
    with pytest.raises(InvalidArgument, match="earliest"):
        broker.topic("prices").subscription("g", start=start)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_deliveries": -1}, "max_deliveries=-1"),
        ({"max_deliveries": 1.5}, "whole number"),
        ({"max_deliveries": True}, "whole number"),
        ({"priorities": 10}, "allowed is 0 to 9"),
        ({"priorities": -1}, "priorities=-1"),
        ({"ordered": 1}, "expected True or False"),
        ({"ordered": True, "priorities": 3}, "exclude each other"),
        ({"lease": 0.01}, "lease=0.01"),
        *(({"lease": wrong}, "lease=") for wrong in WRONG_SECONDS),
    ],
)
def test_properties_that_cannot_be(broker: Messaging, options: dict[str, Any], said: str) -> None:
    """Of queues and subscriptions alike."""
    with pytest.raises(InvalidArgument, match=said):
        broker.queue("orders", **options)
    with pytest.raises(InvalidArgument, match=said):
        broker.topic("prices").subscription("g", **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"headers": ["a"]}, "expected a mapping"),
        ({"headers": {"a": 1}}, "write '1'"),
        ({"headers": {1: "a"}}, "names and values are text"),
        ({"headers": {"": "a"}}, "not empty"),
        ({"headers": {"Narrowboat-x": "a"}}, "reserved"),
        ({"headers": {"a": "\ud800"}}, "surrogates"),
        ({"headers": {"a": "x" * 70_000}}, "allowed are 65536 bytes"),
        *(({name: wrong}, name) for name in ("key", "id", "correlation_id", "content_type") for wrong in ("", "a\n", 3, b"x")),
        *(({"delay": wrong}, "delay=") for wrong in WRONG_SECONDS),
        ({"delay": 40 * 86400}, "delay=.*takes up to"),
        *(({"ttl": wrong}, "ttl=") for wrong in (0, *WRONG_SECONDS)),
        ({"ttl": 5, "delay": 5}, "expire before it could be delivered"),
        ({"priority": -1}, "priority=-1"),
        ({"priority": "high"}, "whole number"),
        ({"priority": 1}, "priorities=1"),
        ({"priority": 99}, "priority=99: allowed is 0 to 9"),  # no queue can be declared with so many levels
    ],
)
def test_options_of_a_publish_that_cannot_be(broker: Messaging, options: dict[str, Any], said: str) -> None:
    """Refused before anything is sent, alone and among many."""
    with pytest.raises(InvalidArgument, match=said):
        broker.queue("orders").publish(b"x", **options)
    with pytest.raises(InvalidArgument, match=f"message 1 of publish_many: .*{said}"):
        broker.queue("orders").publish_many([b"fine", narrowboat.messaging.Outbound(b"x", **options)])


@pytest.mark.parametrize("body", ["text", bytearray(b"x"), memoryview(b"x"), None, 3, {"a": 1}])
def test_a_body_is_bytes(broker: Messaging, body: Any) -> None:
    """And the error says what to do instead."""
    with pytest.raises(InvalidArgument, match="a body is bytes"):
        broker.queue("orders").publish(body)


def test_a_body_has_a_limit(broker: Messaging) -> None:
    """The backend's own."""
    with pytest.raises(InvalidArgument, match="takes up to"):
        broker.queue("orders").publish(bytes(broker.capabilities.body_max + 1))


@pytest.mark.parametrize("options", [{"prefetch": 0}, {"prefetch": 1.5}, {"auto_extend": 1}, {"idle": -1}, {"max_extend": "x"}])
def test_options_of_consume_that_cannot_be(broker: Messaging, options: dict[str, Any]) -> None:
    """Before the feed is opened."""
    with pytest.raises(InvalidArgument, match=next(iter(options))):
        broker.queue("orders").consume(**options)


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"grace": -1}, {"signals": 1}])
def test_options_of_run_that_cannot_be(broker: Messaging, options: dict[str, Any]) -> None:
    """Before the feed is opened."""
    with pytest.raises(InvalidArgument, match=next(iter(options))):
        broker.queue("orders").run(print, **options)


def test_run_takes_a_plain_function(broker: Messaging) -> None:
    """A coroutine function would never be awaited."""

    async def handle(message: narrowboat.Message[bytes]) -> Never:
        raise AssertionError

    def yields(message: narrowboat.Message[bytes]) -> Any:
        yield message

    with pytest.raises(TypeError, match=r"narrowboat\.aio"):
        broker.queue("orders").run(handle)
    with pytest.raises(TypeError, match="has a yield in it"):
        broker.queue("orders").run(yields)
    with pytest.raises(InvalidArgument, match="expected a function"):
        broker.queue("orders").run(3)  # type: ignore[arg-type]  # that is what is refused


def test_run_acks_nothing_that_has_not_run() -> None:
    """A coroutine behind a plain function: its message was lost."""

    async def handle(message: narrowboat.Message[bytes]) -> Never:
        raise AssertionError

    with narrowboat.broker(f"memory://{uuid.uuid4().hex}") as broker:
        queue = broker.queue("late", max_deliveries=1)
        queue.publish(b"x")

        def hidden(message: narrowboat.Message[bytes]) -> object:
            queue.stop()
            return handle(message)

        queue.run(hidden, signals=False)
        assert queue.depth().dead == 1


def test_what_is_not_claimed_is_refused_before_anything_is_sent(broker: Messaging) -> None:
    """Replay and dedup hang on the URL here."""
    with pytest.raises(Unsupported, match="replay"):
        broker.topic("prices").subscription("g", start="earliest")
    with pytest.raises(Unsupported):
        narrowboat.broker("memory://?dedup=0", require="dedup")
    with pytest.raises(Unsupported, match="outbox"):
        broker.queue("orders").send_in(object(), b"x")


def test_times_may_be_timedeltas() -> None:
    """Wherever seconds are taken."""
    with narrowboat.broker(f"memory://{uuid.uuid4().hex}") as broker:
        queue = broker.queue("orders", lease=timedelta(seconds=10))
        queue.publish(b"x", delay=timedelta(0), ttl=timedelta(minutes=1))
        with queue.consume(idle=timedelta(0)) as messages:
            assert [message.body for message in messages] == [b"x"]


@given(st.text(min_size=1, max_size=1200))
def test_text_is_kept_or_refused_never_changed(text: str) -> None:
    """No name becomes another."""
    try:
        assert check_text("name", text) is text
    except InvalidArgument:
        assert len(text) > 1000 or any(ord(c) < 32 or 127 <= ord(c) < 160 or 0xD800 <= ord(c) < 0xE000 for c in text)


header_names = st.text(st.characters(codec="utf-8"), min_size=1).filter(
    lambda name: not name.lower().startswith(RESERVED_PREFIX)
)


@given(st.dictionaries(header_names, st.text(st.characters(codec="utf-8"))))
def test_any_text_is_a_header_and_is_copied(headers: dict[str, str]) -> None:
    """The caller's mapping may change afterwards."""
    kept = check_headers(headers, 1_000_000)

    assert kept == headers
    assert kept is not headers


@given(st.text(min_size=1, max_size=3000))
def test_any_reason_becomes_one_that_a_header_can_carry(reason: str) -> None:
    """A reason is for people: it is cut, not refused."""
    assert check_text("reason", check_reason(reason))
