"""A KeyboardInterrupt at every interruptible point of acquire and release: afterwards the caller holds, or nobody does.

CPython looks for signals when a function starts, after each call, and on each jump backwards, nowhere else. The sweep
traces opcodes, counts those points in this library's own frames, and runs the operation once for each of them with a
KeyboardInterrupt raised exactly there. After each run the lane must still work and the name must be free for others.
"""

import dis
import sys
import threading
import uuid

import pytest

import narrowboat

# A coroutine that is interrupted before its first step is dropped unstarted; that is what an interrupt means.
pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

AFTER = {"CALL", "CALL_FUNCTION_EX", "CALL_KW", "RESUME", "JUMP_BACKWARD", "CALL_INTRINSIC_1"}


class Sweep:
    """Raises KeyboardInterrupt at the n-th interruptible point in frames of the library."""

    def __init__(self, at):
        self.at = at
        self.count = 0
        self.where = None
        self._last = {}
        self._codes = {}

    def _op(self, code, offset):
        if code not in self._codes:
            self._codes[code] = {i.offset: i.opname for i in dis.get_instructions(code)}
        return self._codes[code].get(offset, "")

    def trace(self, frame, event, argument):
        name = frame.f_code.co_filename
        if "narrowboat" not in name or "/tests/" in name or frame.f_code.co_name == "__repr__":
            return None
        frame.f_trace = self.local  # Python 3.13 traces opcodes only of a frame that has its function already
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self.local

    def local(self, frame, event, argument):
        if event == "opcode":
            before = self._last.get(frame)
            self._last[frame] = frame.f_lasti
            if before is not None and self._op(frame.f_code, before).split("_ADAPTIVE")[0] in AFTER:
                self.count += 1
                if self.count == self.at:
                    self.where = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
                    raise KeyboardInterrupt
        elif event == "return":
            self._last.pop(frame, None)
        return self.local


def sweep(operation, limit=5000):
    """Run `operation(interrupt)` for each point until it runs through; give each run's result."""
    at = 0
    while True:
        at += 1
        assert at < limit
        tracer = Sweep(at)

        def interrupted(function, tracer=tracer):
            sys._getframe().f_trace_opcodes = True  # Python 3.12 traces opcodes only if a frame has asked for them before
            sys.settrace(tracer.trace)
            try:
                return function()
            finally:
                sys.settrace(None)

        operation(interrupted, tracer)
        if tracer.where is None:
            return at - 1


@pytest.mark.parametrize("url", ["memory://{}", "sqlite:///{}"])
def test_acquire_leaves_nothing_behind_wherever_it_is_interrupted(url, tmp_path):
    """Interrupted at any point of acquire: the caller has the possession, or the name is free at once."""
    unique = uuid.uuid4().hex
    url = url.format(tmp_path / "locks.db" if url.startswith("sqlite") else unique)
    before = set(threading.enumerate())
    with narrowboat.locks(url) as mine, narrowboat.locks(url) as others:
        others.ping()
        lock = mine.lock("name", ttl=30)
        lock.acquire().release()

        def once(interrupted, tracer):
            held = None
            try:
                held = interrupted(lock.acquire)
            except KeyboardInterrupt:
                pass
            if held is not None:
                assert not held.lost
                held.release()
            free = others.lock("name").acquire(timeout=5)  # a withdraw may still be on its way on the lane's thread
            free.release()
            again = lock.acquire(timeout=5)
            again.release()

        points = sweep(once)
        assert points > 50  # the sweep really found the points

    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("url", ["memory://{}", "sqlite:///{}"])
def test_release_frees_or_keeps_wherever_it_is_interrupted(url, tmp_path):
    """Interrupted at any point of release: it is still held, and says so, or it is free."""
    unique = uuid.uuid4().hex
    url = url.format(tmp_path / "locks.db" if url.startswith("sqlite") else unique)
    with narrowboat.locks(url) as mine, narrowboat.locks(url) as others:
        lock = mine.lock("name", ttl=30)

        def once(interrupted, tracer):
            held = lock.acquire(timeout=5)
            try:
                interrupted(held.release)
            except KeyboardInterrupt:
                pass
            if others.holders("name"):
                held.check()
                held.release()
            others.lock("name").acquire(timeout=5).release()

        points = sweep(once)
        assert points > 15


def test_a_with_block_is_entered_whole_or_not_at_all(tmp_path):
    """Interrupted at any point on the way into a `with`: the body runs and the lock is freed, or it was never taken."""
    url = f"memory://{uuid.uuid4().hex}"
    with narrowboat.locks(url) as mine, narrowboat.locks(url) as others:
        lock = mine.lock("name", ttl=30)
        lock.acquire().release()

        def once(interrupted, tracer):
            try:
                interrupted(lock.__enter__)
            except KeyboardInterrupt:
                assert not lock._entered
            else:
                lock.__exit__(None, None, None)
            others.lock("name").acquire(timeout=5).release()

        sweep(once)
