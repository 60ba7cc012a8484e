"""What stands around each publish, on both faces: ordered, adding headers, seeing what fails."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

import narrowboat
from narrowboat import Outbound, aio
from narrowboat.codecs import JSON
from narrowboat.errors import InvalidArgument, PublishFailed, PublishUnknown, Unavailable
from narrowboat.layers.faults import Faults
from narrowboat.messaging import Publishing

FACES = {"sync": narrowboat, "asyncio": aio}


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Told:
    """What was entered and left, in order."""

    def __init__(self) -> None:
        self.lines: list[Any] = []

    def around(self, name: str, **headers: str) -> Any:
        @contextlib.contextmanager
        def each(publishing: Publishing) -> Iterator[None]:
            self.lines.append((name, publishing.to, [message.data for message in publishing.messages]))
            publishing.headers.update(headers)
            try:
                yield
            except narrowboat.NarrowboatError as error:
                self.lines.append((name, type(error)))
                raise
            self.lines.append((name, "left"))

        return each


def publish(face: str, *calls: tuple[str, Any, dict[str, Any]], **options: Any) -> tuple[list[Any], list[Any]]:
    """Make the calls on a queue of JSON; what they gave or raised, and the messages that came."""
    url = f"memory://{uuid.uuid4().hex}"

    async def main() -> list[Any]:
        answers: list[Any] = []
        broker: Any = FACES[face].broker(url, **options)
        for name, data, more in calls:
            try:
                answer = getattr(broker.queue("orders", codec=JSON), name)(data, **more)
                answers.append(await answer if face == "asyncio" else answer)
            except narrowboat.NarrowboatError as error:
                answers.append(error)
        closed = broker.close()
        if closed is not None:
            await closed
        return answers

    with narrowboat.broker(url) as reader, reader.queue("orders", codec=JSON).consume(idle=0) as messages:
        answers = asyncio.run(main())
        return answers, [(message.data, dict(message.headers), message.key, message.id) for message in messages]


def test_the_first_is_outermost_and_headers_go_with_the_message(face: str) -> None:
    """A header that the publisher gave stays; all other options go as they are."""
    told = Told()
    around = [told.around("outer", trace="outer", mine="theirs"), told.around("inner", trace="inner")]
    _, messages = publish(face, ("publish", {"a": 1}, {"headers": {"mine": "mine"}, "key": "k", "id": "i"}), around=around)

    assert messages == [({"a": 1}, {"trace": "inner", "mine": "mine"}, "k", "i")]
    assert told.lines == [
        ("outer", "orders", [{"a": 1}]),
        ("inner", "orders", [{"a": 1}]),
        ("inner", "left"),
        ("outer", "left"),
    ]


def test_many_are_one_call(face: str) -> None:
    """Data and `Outbound` beside each other, from any iterable, as without it."""
    told = Told()
    many = iter([1, Outbound(2, key="k", id="two"), 3])
    _, messages = publish(face, ("publish_many", many, {}), around=[told.around("one", trace="t")])

    assert [(data, headers, key) for data, headers, key, _ in messages] == [
        (1, {"trace": "t"}, None),
        (2, {"trace": "t"}, "k"),
        (3, {"trace": "t"}, None),
    ]
    assert told.lines == [("one", "orders", [1, 2, 3]), ("one", "left")]


def test_it_sees_what_fails(face: str) -> None:
    """What cannot be sent, and what was not: the caller gets it as without."""
    told, faults = Told(), Faults()
    faults.fail("send", Unavailable("away", sent=False))
    calls: list[Any] = [("publish", 1, {}), ("publish", {1}, {}), ("publish_many", [{1}], {}), ("publish_many", "abc", {})]
    answers, messages = publish(face, *calls, around=[told.around("one")], wrap=faults.wrap)

    assert [type(answer) for answer in answers] == [PublishFailed, InvalidArgument, InvalidArgument, InvalidArgument]
    assert answers[2].position == 0
    assert [line[1] for line in told.lines if len(line) == 2] == [PublishFailed, InvalidArgument, InvalidArgument]
    assert not messages


def test_a_header_that_cannot_be_kept_is_refused(face: str) -> None:
    """They are checked as a publisher's own."""
    told = Told()
    (answer,), messages = publish(face, ("publish", 1, {}), around=[told.around("one", **{"narrowboat-x": "1"})])
    assert isinstance(answer, InvalidArgument) and "reserved" in str(answer) and not messages


@pytest.mark.parametrize("around", [5, print, [5], "text"])
def test_what_is_no_list_of_functions_is_refused(face: str, around: Any) -> None:
    """Where it is given."""
    with pytest.raises(InvalidArgument, match=r"^around"):
        FACES[face].broker("memory://around", around=around)


def test_a_broker_without_it_imports_nothing_of_it() -> None:
    """Most programs have none."""
    program = (
        "import sys, narrowboat\n"
        "with narrowboat.broker('memory://x') as broker: broker.queue('a').publish(b'1')\n"
        "assert 'narrowboat._messages.around' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_one_swallows_is_raised_and_nothing_is_sent_twice(face: str) -> None:
    """The caller is owed a receipt or an error, and a second way to send would leave the headers out."""

    @contextlib.contextmanager
    def quiet(publishing: Publishing) -> Iterator[None]:
        publishing.headers["trace"] = "t"
        with contextlib.suppress(Exception):
            yield

    faults = Faults()
    faults.drop_reply("send")
    answers, messages = publish(face, ("publish", 1, {}), ("publish_many", [{1}], {}), around=[quiet], wrap=faults.wrap)
    assert [type(answer) for answer in answers] == [PublishUnknown, InvalidArgument]
    assert [(data, headers) for data, headers, *_ in messages] == [(1, {"trace": "t"})]
