"""RabbitMQ's I/O thread without a server: what is posted to it, from any thread, is done once and in order."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from narrowboat_rabbitmq.connection.loop import Answer, Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop("test-io", 60.0, time.monotonic)
    yield made
    made.close(5.0)


def ended(loop: Loop) -> bool:
    """Whether what was posted before is done."""
    answer: Answer[None] = Answer()
    loop.post(lambda: answer.give(None))
    return answer.wait(10.0)


def test_all_that_is_posted_while_the_thread_is_busy_wakes_it_once(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ended(loop)
    wakes: list[object] = []
    wake = loop.raw.add_callback_threadsafe

    def noted(work: Callable[[], object]) -> None:
        wakes.append(work)
        wake(work)

    monkeypatch.setattr(loop.raw, "add_callback_threadsafe", noted)
    busy, go_on = Answer[None](), threading.Event()
    done: list[int] = []

    def work() -> None:
        busy.give(None)
        go_on.wait(10.0)

    loop.post(work)
    assert busy.wait(10.0)
    for number in range(100):
        loop.post(functools.partial(done.append, number))
    go_on.set()

    assert ended(loop)
    assert done == list(range(100))
    assert len(wakes) <= 3, "one for the work, one for the hundred, one for whoever asked whether they are done"


def test_what_many_threads_post_is_all_done(loop: Loop) -> None:
    done: list[tuple[int, int]] = []

    def post(thread: int) -> None:
        for number in range(2000):
            loop.post(functools.partial(done.append, (thread, number)))
            if number % 100 == 0:
                assert ended(loop)

    threads = [threading.Thread(target=post, args=(each,)) for each in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert ended(loop)
    assert sorted(done) == [(thread, number) for thread in range(4) for number in range(2000)]


@pytest.mark.parametrize("woken", [False, True])
def test_an_interrupt_while_it_is_woken_silences_nobody(loop: Loop, monkeypatch: pytest.MonkeyPatch, *, woken: bool) -> None:
    assert ended(loop)
    wake = loop.raw.add_callback_threadsafe
    done: list[str] = []

    def interrupted(work: object) -> None:
        monkeypatch.setattr(loop.raw, "add_callback_threadsafe", wake)
        if woken:
            wake(work)
            assert caught_up()
        raise KeyboardInterrupt

    def caught_up() -> bool:
        answer: Answer[None] = Answer()
        wake(lambda: answer.give(None))
        return answer.wait(10.0)

    monkeypatch.setattr(loop.raw, "add_callback_threadsafe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loop.post(lambda: done.append("interrupted"))
    loop.post(lambda: done.append("next"))

    assert ended(loop)
    assert done == (["interrupted", "next"] if woken else ["next"])
