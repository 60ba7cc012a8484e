"""The lane: one driver call at a time, callers gathered, nobody's call lost or overtaken."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any, Never

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrowboat._engine.exchange import DONE, Call, Op, perform
from narrowboat._engine.lane import MANY, Lane, lane
from narrowboat._engine.runtime import Blocking, run
from narrowboat.aio._runtime import Asyncio
from narrowboat.capabilities import Concurrency
from narrowboat.clock import SystemClock
from narrowboat.errors import Closed, Unavailable

runtime = Blocking(SystemClock())


def call(lane: Lane, op: Op, item: object) -> Any:
    return run(runtime.call(lane, Call(op, (item,))))[0]


class Recorder:
    """A driver call that can be held up, and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Event()
        self.go = threading.Event()
        self.inside = 0

    def __call__(self, items: Sequence[int]) -> list[int]:
        assert self.inside == 0, "two driver calls at once"
        self.inside += 1
        self.batches.append(list(items))
        self.entered.set()
        assert self.go.wait(10)
        self.inside -= 1
        return [item * 2 for item in items]


def test_a_lone_caller_runs_in_its_own_thread() -> None:
    """Without contention there is no hand-over to another thread, and no thread at all."""
    seen: list[threading.Thread] = []

    def where(items: Sequence[int]) -> list[None]:
        seen.extend(threading.current_thread() for _ in items)
        return [None] * len(items)

    op = Op("where", where, repeatable=True)
    lane = Lane("test")

    call(lane, op, 1)

    assert seen == [threading.current_thread()]
    assert lane._thread is None


def test_callers_that_arrive_meanwhile_share_the_next_call() -> None:
    """While one call is under way the others gather, and go together as one batch."""
    recorder, lane = Recorder(), Lane("test")
    op = Op("double", recorder, repeatable=True)
    results: dict[int, int] = {}
    threads = [threading.Thread(target=lambda n=n: results.__setitem__(n, call(lane, op, n))) for n in range(5)]
    threads[0].start()
    assert recorder.entered.wait(10)
    for thread in threads[1:]:
        thread.start()
    while len(lane._waiting) < 4:  # each of them has arrived
        threading.Event().wait(0.001)
    recorder.go.set()
    for thread in threads:
        thread.join(10)

    assert results == {n: n * 2 for n in range(5)}
    assert [sorted(batch) for batch in recorder.batches] == [[0], [1, 2, 3, 4]]
    lane.close(5)


def test_a_caller_that_leaves_a_queued_call_is_dropped() -> None:
    """What is still queued when its caller leaves is never executed."""
    recorder, lane = Recorder(), Lane("test")
    op = Op("double", recorder, repeatable=True)
    first = threading.Thread(target=call, args=(lane, op, 1))
    first.start()
    assert recorder.entered.wait(10)
    queued = Call(op, (2,))
    lane.submit([queued])

    assert lane.leave(queued) is True
    recorder.go.set()
    first.join(10)
    assert lane.close(5)
    assert recorder.batches == [[1]]


def test_an_undo_never_overtakes_the_call_that_it_undoes() -> None:
    """The undo of a call that is under way runs after it has returned, not before."""
    recorder, lane = Recorder(), Lane("test")
    order = []
    op = Op("double", recorder, repeatable=True)
    undone = threading.Event()

    def undo(call: Call) -> None:
        order.append(call.results)
        undone.set()

    left = Call(op, (1,), undo=undo)
    lane.submit([left])
    assert recorder.entered.wait(10)

    assert lane.leave(left) is False
    assert order == []
    recorder.go.set()
    assert undone.wait(10)
    assert order == [[2]]
    lane.close(5)


def test_a_failed_batch_is_tried_again_one_by_one() -> None:
    """One poisonous member does not fail the others, where repeating is safe."""

    def fussy(items: Sequence[int]) -> list[int]:
        if 13 in items:
            raise Unavailable("13")
        return list(items)

    results = perform(Op("fussy", fussy, repeatable=True), [1, 13, 2])

    assert results[0] == 1
    assert isinstance(results[1], Unavailable)
    assert results[2] == 2


def test_what_failed_is_told_once_and_after_all_tries() -> None:
    """Who is told of each exchange would keep the members that the repetition has done."""
    told: list[tuple[list[int], list[bool]]] = []

    def fussy(items: Sequence[int]) -> list[int]:
        if 13 in items:
            raise Unavailable("13")
        return list(items)

    def failed(items: Sequence[int], answers: Sequence[Any]) -> None:
        told.append(([*items], [isinstance(answer, Exception) for answer in answers]))

    op = Op("fussy", fussy, repeatable=True, failed=failed)
    perform(op, [1, 13, 2])
    perform(op, [13])
    perform(op, [1])

    assert told == [([1, 13, 2], [False, True, False]), ([13], [True])]


def test_what_never_reached_the_driver_is_told_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread can be started, and nobody waits for what was posted."""

    def never(thread: threading.Thread) -> Never:
        raise Unavailable("no thread can be started")

    monkeypatch.setattr("narrowboat._engine.lane.start", never)
    told: list[Sequence[int]] = []
    lane = Lane("test")

    lane.post(Op("echo", list, repeatable=True, failed=lambda items, answers: told.append(items)), [1])

    assert told == [[1]]


def test_a_send_is_never_repeated() -> None:
    """Where repeating could store twice, a failed exchange is each member's error and nothing is sent again."""
    calls = []

    def send(items: Sequence[int]) -> Never:
        calls.append(items)
        raise Unavailable("no reply")

    results = perform(Op("send", send, repeatable=False), [1, 2])

    assert len(calls) == 1
    assert all(isinstance(result, Unavailable) for result in results)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40))
def test_no_batch_holds_two_that_must_be_apart(items: list[int]) -> None:
    """Equal items go in different rounds, in the order of their arrival, and each gets its own answer."""
    batches = []

    def echo(batch: Sequence[int]) -> list[tuple[int, int]]:
        batches.append(list(batch))
        return [(item, len(batches)) for item in batch]

    results = perform(Op("echo", echo, repeatable=True, distinct=lambda item: item), items)

    assert [result[0] for result in results] == items
    assert all(len(set(batch)) == len(batch) for batch in batches)
    for value in set(items):
        rounds = [result[1] for result in results if result[0] == value]
        assert rounds == sorted(rounds)


def test_close_finishes_what_is_under_way_and_refuses_the_rest() -> None:
    """A call that is queued before the close is answered; one after it is refused; no thread is left."""
    recorder, lane = Recorder(), Lane("test-close")
    op = Op("double", recorder, repeatable=True)
    queued = Call(op, (1,))
    lane.submit([queued])
    assert recorder.entered.wait(10)
    closing = threading.Thread(target=lane.close, args=(10,))
    closing.start()
    recorder.go.set()
    closing.join(10)

    assert queued.state == DONE and queued.results == [2]
    assert isinstance(call(lane, op, 2), Closed)
    assert not any(thread.name == "test-close" for thread in threading.enumerate())


class Crowd:
    """A driver call that lets everybody in at once."""

    def __init__(self, size: int) -> None:
        self.together = threading.Barrier(size, timeout=10)
        self.batches: list[list[int]] = []

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.together.wait()
        return [item * 2 for item in items]


def test_a_driver_that_multiplexes_is_entered_side_by_side() -> None:
    """Eight threads are inside at once: the barrier opens for all or for nobody."""
    crowd, open_lane = Crowd(8), lane("test", Concurrency.MULTIPLEXED)
    op = Op("double", crowd, repeatable=True)
    answers: dict[int, int] = {}
    threads = [threading.Thread(target=lambda n=n: answers.setdefault(n, call(open_lane, op, n))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert answers == {n: 2 * n for n in range(8)}
    assert sorted(crowd.batches) == [[n] for n in range(8)]


def test_an_open_lane_closes_after_those_inside_and_refuses_the_rest() -> None:
    """Close waits for a call under way, within its time; what comes later is told that it is closed."""
    recorder, open_lane = Recorder(), lane("test-close", Concurrency.MULTIPLEXED)
    op, answers = Op("double", recorder, repeatable=True), []
    inside = threading.Thread(target=lambda: answers.append(call(open_lane, op, 1)))
    inside.start()
    assert recorder.entered.wait(10)

    assert not open_lane.close(0.05)
    assert isinstance(call(open_lane, op, 2), Closed)
    recorder.go.set()
    inside.join(10)
    assert answers == [2]
    assert open_lane.close(5)
    assert recorder.batches == [[1]]


def test_half_of_a_crowd_goes_first_where_the_driver_is_remote() -> None:
    """The answers of one half are handled while the other is under way; what may come last still does, and nobody is lost."""
    recorder, lane = Recorder(), Lane("test", remote=True)
    op = Op("double", recorder, repeatable=True)
    late = Op("late", recorder, repeatable=False, last=True)
    finished = threading.Event()
    calls = [Call(late, (-1,)), *(Call(op, (number,)) for number in range(MANY - 1))]
    barrier = Call(op, (MANY,), sink=lambda call: finished.set())
    lane.submit([Call(op, (-2,))])
    assert recorder.entered.wait(10)
    lane.submit([*calls, barrier])
    recorder.go.set()

    assert finished.wait(10)
    assert lane.close(10)
    half = (MANY + 1) // 2
    assert recorder.batches == [[-2], list(range(half)), [*range(half, MANY - 1), MANY], [-1]]
    assert all(call.results == [call.items[0] * 2] for call in [*calls, barrier])


def test_what_a_cancelled_task_calls_is_never_sent() -> None:
    """Cancelled before its call or in the same tick, a task leaves nothing to be done, and nothing to be undone."""
    sent: list[str] = []

    def send(items: Sequence[str]) -> list[None]:
        sent.extend(items)
        return [None] * len(items)

    op = Op("note", send, repeatable=True)
    lane, aio = Lane("test"), Asyncio(SystemClock())

    async def cancelled_already() -> None:
        asyncio.current_task().cancel()
        await aio.call(lane, Call(op, ("already",)))

    async def note(item: str) -> None:
        await aio.call(lane, Call(op, (item,)))

    async def main() -> None:
        for _ in range(50):
            task = asyncio.create_task(note("meanwhile"))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task, asyncio.create_task(cancelled_already())])
        await note("last")

    asyncio.run(main())
    assert sent == ["last"]
    assert lane.close(5)
