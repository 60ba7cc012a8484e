"""What a worker refuses, and where: at the decorator, or at its start before anything is consumed."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import uuid
from typing import Any

import pytest
from test_worker import FACES, living, make, register, until

import narrowboat
from narrowboat.errors import ConfigurationError, InvalidArgument


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}"


async def acoroutine(message: Any) -> None:
    """A handler of the other face."""


def plain(message: Any) -> None:
    """A handler of the other face."""


def mine(face: str) -> Any:
    return plain if face == "sync" else acoroutine


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch": 10, "ordered": True}, "batch=10 with ordered=True: an ordered source hands out one message of a key"),
        ({"batch": 10, "concurrency": 2}, "batch=10 with concurrency=2: batches are handled one after the other"),
        ({"batch": 0}, "batch=0: allowed is 1 to 10000"),
        ({"concurrency": 0}, "concurrency=0: allowed is 1 to 10000"),
        ({"timeout": 0}, "timeout=0: allowed is 0.001 or more seconds, or None"),
        ({"retry": 5}, "retry=5: expected narrowboat.Retry"),
        ({"prefetch": 0}, "prefetch=0: allowed is 1 to 1000000"),
        ({"breaker": True}, "breaker=True: expected narrowboat.Breaker"),
        ({"concurency": 5}, "unknown option 'concurency'. Did you mean 'concurrency'?"),
        ({"start": "latest"}, "unknown option 'start'"),
    ],
)
def test_an_option_that_cannot_work_is_refused_where_it_is_written(face: str, options: dict[str, Any], text: str) -> None:
    """At the decorator, before there is a broker."""
    with pytest.raises(InvalidArgument) as told:
        make(face).queue("orders", **options)(mine(face))
    assert text in str(told.value)


def test_a_source_has_one_handler(face: str) -> None:
    """Two would share its messages at random; a topic has a subscription for each."""
    worker = make(face)
    worker.queue("orders")(mine(face))
    worker.subscription("prices", "page")(mine(face))
    for decorate, source in ((worker.queue("orders"), "orders"), (worker.subscription("prices", "page"), "prices.page")):
        with pytest.raises(InvalidArgument, match=f"for '{source}': .* handles it already in this worker"):
            decorate(mine(face))


@pytest.mark.parametrize("function", [plain, acoroutine, "text"])
def test_a_handler_of_the_other_face_is_refused(face: str, function: Any) -> None:
    """A plain function would stop the event loop, a coroutine function would never run in a thread."""
    if function is mine(face):
        return
    with pytest.raises(
        InvalidArgument, match=r"plain function, which would stop|take narrowboat\.aio\.Worker|cannot be called"
    ):
        make(face).queue("orders")(function)


def start(worker: Any, face: str) -> None:
    with living(worker, face):
        pass


def test_what_is_wrong_is_told_before_anything_is_consumed(face: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No handlers, no such backend, no URL, properties that the backend refuses: one typed error, and no source was opened."""
    with pytest.raises(ConfigurationError, match="this worker has no handlers"):
        start(make(face, url), face)
    monkeypatch.delenv("NARROWBOAT_BROKER_URL", raising=False)
    for worker, error, text in (
        (make(face), ConfigurationError, "NARROWBOAT_BROKER_URL"),
        (make(face, "memmory://x"), ConfigurationError, "memory"),
    ):
        worker.queue("orders")(mine(face))
        with pytest.raises(error, match=text):
            start(worker, face)
    worker = make(face, url)
    worker.queue("orders")(mine(face))
    worker.queue("bills", max_deliveries=-1)(mine(face))
    with pytest.raises(InvalidArgument, match="max_deliveries=-1"):
        start(worker, face)
    with pytest.raises(InvalidArgument, match="broker=5: expected a URL"):
        make(face, 5)
    with pytest.raises(InvalidArgument, match="grace=-1"):
        make(face, url, grace=-1)
    with pytest.raises(InvalidArgument, match="around: 5 cannot be called"):
        make(face, url, around=[5])


def test_a_worker_runs_once_at_a_time(face: str, url: str) -> None:
    """A second start while it runs is refused, and changes nothing; so is a handler, which would get nothing."""
    worker = make(face, url)
    worker.queue("orders")(mine(face))
    with living(worker, face):
        with pytest.raises(InvalidArgument, match="runs already"):
            start(worker, face)
        with pytest.raises(InvalidArgument, match="runs already; register handlers before"):
            worker.queue("bills")(mine(face))
        until(lambda: worker.health().ready)
    worker.queue("bills")(mine(face))


def test_urls_come_from_the_environment(face: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker's when it starts, the locks' when a handler asks for them; both are closed at the end."""
    monkeypatch.setenv("NARROWBOAT_BROKER_URL", url)
    monkeypatch.setenv("NARROWBOAT_LOCKS_URL", url)
    worker, got = make(face), queue.Queue[Any]()
    register(worker.queue("orders"), face, lambda message: got.put(worker.locks.lock("a")))
    with living(worker, face), narrowboat.broker(url) as broker:
        broker.queue("orders").publish(b"1")
        assert "a" in repr(got.get(timeout=60))


@pytest.mark.parametrize("only", [5, None, b"ship", ["plain", None]])
def test_names_that_are_none_are_refused(face: str, url: str, only: Any) -> None:
    """With one typed error, before anything is opened."""
    worker = make(face, url)
    worker.queue("orders")(mine(face))
    with pytest.raises(InvalidArgument, match=r"only=.*: expected names of handlers or sources"):
        asyncio.run(worker.run(only=only)) if face == "asyncio" else worker.run(only=only)


def test_of_two_threads_that_start_it_one_does(url: str) -> None:
    """The other is refused, and closes nothing of the first one's."""
    worker, met, gate = narrowboat.Worker(url), queue.Queue[Any](), threading.Barrier(2)
    worker.queue("orders")(plain)

    def body() -> None:
        gate.wait(60)
        try:
            worker.run(signals=False)
        except Exception as error:
            met.put(error)
        else:
            met.put("ended")

    threads = [threading.Thread(target=body) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert isinstance(met.get(timeout=60), InvalidArgument)
    until(lambda: worker.health().ready)
    worker.stop()
    assert met.get(timeout=60) == "ended"
    for thread in threads:
        thread.join(60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_may_run_it_as_well(url: str) -> None:
    """What runs is the parent's, which goes on."""
    worker = narrowboat.Worker(url)
    worker.queue("orders")(plain)
    with worker:
        until(lambda: worker.health().ready)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                with worker:
                    until(lambda: worker.health().ready)
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert worker.health().ready
