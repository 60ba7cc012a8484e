"""A driver's own thread: one at a time, begun by the first, ended for good, whatever strikes in between."""

from __future__ import annotations

import os
import queue
import signal
import threading
from typing import Never

import pytest

from narrowboat.conformance.faults.sweep import Strike, sweep
from narrowboat.driver.threads import LazyThread

#: Also in the standard library's own code: an interrupt knows no borders.
WITHIN = ("narrowboat.driver", "threading")


class Loop:
    """A loop that says which threads have run it, and how many did at once."""

    def __init__(self) -> None:
        self.jobs: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.done: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.running = self.most = 0
        self.thread = LazyThread("tested", self.run, wake=lambda: self.jobs.put(None))

    def run(self) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        while not self.thread.ended:
            self.done.put(self.jobs.get())
        self.running -= 1


def test_it_begins_with_the_first_and_ends_for_good() -> None:
    """There is no thread before; later starts do nothing; after the end none begins."""
    loop = Loop()
    before = threading.active_count()
    assert loop.running == 0 and threading.active_count() == before

    assert loop.thread.start() and not loop.thread.start()
    loop.jobs.put("a")
    assert loop.done.get(timeout=10) == "a"
    assert loop.thread.end(10) and loop.running == 0
    assert not loop.thread.start() and threading.active_count() == before
    assert loop.thread.end(10)


def test_one_that_never_began_is_not_woken() -> None:
    """What `wake` would reach may not be there."""
    thread = LazyThread("tested", lambda: None, wake=lambda: pytest.fail("it was woken"))
    assert thread.end()
    assert not thread.start()


def test_a_loop_that_ended_by_itself_is_begun_again() -> None:
    """Whoever has something for it later gets a new one."""
    ran: queue.SimpleQueue[int] = queue.SimpleQueue()
    thread = LazyThread("tested", lambda: ran.put(threading.get_ident()), wake=lambda: None)
    for _ in range(3):
        thread.start()
        ran.get(timeout=10)
        thread._thread.join(10)


def test_it_can_end_itself() -> None:
    """A loop that finds out that it is of no use any more does not wait for itself."""
    ended: queue.SimpleQueue[bool] = queue.SimpleQueue()
    thread = LazyThread("tested", lambda: ended.put(thread.end()), wake=lambda: None)
    thread.start()
    assert ended.get(timeout=10) is False


def test_a_machine_without_threads_is_told_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is Python's; the next start tries again."""
    loop = Loop()

    def refuse(self: threading.Thread) -> Never:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(2):
            with pytest.raises(RuntimeError):
                loop.thread.start()
    assert loop.thread.start() and loop.thread.end(10)


def test_many_that_start_at_once_begin_one() -> None:
    """From as many threads as there are."""
    loop = Loop()
    gate = threading.Barrier(8)

    def begin() -> None:
        gate.wait()
        loop.thread.start()

    starters = [threading.Thread(target=begin) for _ in range(8)]
    for each in starters:
        each.start()
    for each in starters:
        each.join(10)
    loop.jobs.put("a")
    assert loop.done.get(timeout=10) == "a"
    assert loop.thread.end(10) and loop.most == 1


def test_an_interrupt_anywhere_in_a_start_leaves_one_thread_at_most() -> None:
    """And the next start, if any is needed, begins the one that works."""

    def once(strike: Strike) -> None:
        loop = Loop()
        try:
            strike(loop.thread.start)
        except (KeyboardInterrupt, RuntimeError):  # the latter where it strikes inside a condition's wait, which CPython loses
            loop.thread.start()
        loop.jobs.put("a")
        assert loop.done.get(timeout=10) == "a", strike.where
        assert loop.thread.end(10), strike.where
        assert loop.running == 0 and loop.most == 1, strike.where

    assert sweep(once, within=WITHIN) > 20


def test_an_interrupt_anywhere_in_an_end_is_made_good_by_the_next() -> None:
    """The thread is gone after it."""

    def once(strike: Strike) -> None:
        loop = Loop()
        loop.thread.start()
        try:
            strike(loop.thread.end, 10)
        except KeyboardInterrupt:
            pass
        assert loop.thread.end(10), strike.where
        assert loop.running == 0, strike.where

    assert sweep(once, within=WITHIN) > 5


def test_a_forked_child_has_none_and_begins_none() -> None:
    """Also where another thread was just starting it when the fork came: nothing waits for what the child does not have."""
    loop = Loop()
    loop.thread.start()
    loop.thread._mutex.acquire()  # as another thread would hold it
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        holder = threading.Thread(target=lambda: None)  # its own threads work
        holder.start()
        holder.join()
        os._exit(0 if (loop.thread.start(), loop.thread.end()) == (False, True) else 1)
    loop.thread._mutex.release()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert loop.thread.end(10)
