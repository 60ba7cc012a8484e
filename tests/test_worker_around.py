"""What stands around the calls of a handler; on both faces."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from test_worker import FACES, Log, living, logged, make, register, until

import narrowboat
from narrowboat.contract import Depth
from narrowboat.errors import InvalidArgument
from narrowboat.working import Handling


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def log() -> Iterator[Log]:
    with logged() as handler:
        yield handler


def test_around_is_ordered_and_sees_what_the_handler_raises(face: str, url: str) -> None:
    """The first is outermost; one that swallows an exception makes it a success."""
    told: queue.Queue[Any] = queue.Queue()

    def around(name: str, *, swallow: bool = False) -> Any:
        @contextlib.contextmanager
        def plain(handling: Handling) -> Iterator[None]:
            told.put((name, handling.source, handling.handler, [message.body for message in handling.messages]))
            try:
                yield
            except ValueError:
                told.put((name, "ValueError"))
                if not swallow:
                    raise

        @contextlib.asynccontextmanager
        async def asynchronous(handling: Handling) -> Any:
            with plain(handling):
                yield

        return plain if face == "sync" else asynchronous

    worker = make(face, url, around=[around("outer", swallow=True), around("inner")])

    def ship(message: Any) -> None:
        raise ValueError

    register(worker.queue("orders"), face, ship)
    with living(worker, face), narrowboat.broker(url) as broker:
        broker.queue("orders").publish(b"1")
        assert [told.get(timeout=60) for _ in range(4)] == [
            ("outer", "orders", "ship", [b"1"]),
            ("inner", "orders", "ship", [b"1"]),
            ("inner", "ValueError"),
            ("outer", "ValueError"),
        ]
        until(lambda: worker.health().sources[0].handled == 1)
        assert worker.health().sources[0].failed == 0


def no_manager(handling: Handling) -> Any:
    return handling.messages


async def coroutine(handling: Handling) -> None: ...


def hidden(handling: Handling) -> Any:
    return coroutine(handling)


@contextlib.contextmanager
def swallows(handling: Handling) -> Iterator[None]:
    with contextlib.suppress(Exception):
        yield


@contextlib.contextmanager
def plain(handling: Handling) -> Iterator[None]:
    yield


@contextlib.asynccontextmanager
async def aswallows(handling: Handling) -> Any:
    with contextlib.suppress(Exception):
        yield


@pytest.mark.parametrize("batch", [None, 5])
@pytest.mark.parametrize(
    ("given", "what"),
    [
        (no_manager, "no_manager gave tuple"),
        (hidden, "hidden gave coroutine"),
        (None, "gave _(Async)?Generator"),
    ],
)
def test_what_is_no_context_manager_ends_the_worker(
    face: str, url: str, given: Any, what: str, batch: int | None, log: Log
) -> None:
    """It is the program's fault and no message's: they go back uncounted, and the error says what to write."""
    given = given or (aswallows if face == "sync" else plain)
    worker = make(face, url, around=[swallows if face == "sync" else aswallows, given])
    register(worker.queue("orders", batch=batch, max_deliveries=1), face, lambda message: None)
    with narrowboat.broker(url) as broker:
        orders = broker.queue("orders", max_deliveries=1)
        orders.publish_many([b"1", b"2", b"3"])
        with pytest.raises(InvalidArgument, match=rf"{what}.*, and no context manager; write it with @contextlib\.\w+manager"):
            asyncio.run(worker.run()) if face == "asyncio" else worker.run(signals=False)
        assert orders.depth() == Depth(3, 0, 0, 0)
        with orders.consume() as messages:
            assert [messages.receive(timeout=60).attempt for _ in range(3)] == [1, 1, 1]
    assert log.lines.empty()


def generator(handling: Handling) -> Iterator[None]:
    yield


@pytest.mark.parametrize(
    ("around", "text"),
    [
        ([5], "5 cannot be called"),
        (plain, "expected a list of functions"),
        ([plain, generator], "generator gives a generator, and no context manager; does it want @contextlib"),
        ([coroutine], "coroutine gives a coroutine, and no context manager"),
    ],
)
def test_what_cannot_be_around_is_refused_where_it_is_written(face: str, around: Any, text: str) -> None:
    """So it is for a broker."""
    for make_one in (FACES[face].Worker, FACES[face].broker):
        with pytest.raises(InvalidArgument) as told:
            make_one("memory://around", around=around)
        assert text in str(told.value)
