"""The sync core under switches of threads that a seed chooses: the lane, possessions and their renewal, the consumer.

A few hundred schedules of each by default; NARROWBOAT_SCHEDULES=5000 explores more. A failure names its seed.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import math
import sys
import textwrap
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest
from schedules import seeds
from switches import Schedule, explore

import narrowboat
from narrowboat._engine import exchange, lane, runtime, timer
from narrowboat._engine.exchange import Call, Op
from narrowboat._engine.lane import Lane, OpenLane
from narrowboat._engine.runtime import Blocking, BlockingSignal, run
from narrowboat._locks import acquire, core, late_withdrawals, possession, release, renewal
from narrowboat._locks.core import LockCore
from narrowboat._locks.possession import HELD, Possession
from narrowboat._messages import close, consumer, delivery, extension, polling, settle, window
from narrowboat._messages.polling import Polling
from narrowboat._messages.window import Window
from narrowboat.contract import Delivery, Feed, Outcome, Received
from narrowboat.contract.locks import Grant, LockProvider, Request
from narrowboat.errors import (
    BrokerError,
    Closed,
    LeaseLost,
    LockTimeout,
    NarrowboatError,
    SettleUnknown,
    StaleDelivery,
    Unavailable,
)
from narrowboat.events import Event, Lost, Released
from narrowboat.layers.passing import PassingBroker, PassingFeed, PassingLocks
from narrowboat.locking import Held
from narrowboat.messaging.message import Message
from narrowboat_memory.names import LockSpace
from narrowboat_memory.space import space

#: Schedules are grouped, so that a run of thousands is not thousands of tests.
GROUPS = 10


class Deeds:
    """A driver call that notes what it does, and is now and then not answered."""

    def __init__(self, schedule: Schedule, *, alone: bool) -> None:
        self.schedule = schedule
        self.alone = alone
        self.inside = 0
        self.done: Counter[int] = Counter()
        self.over = False

    def __call__(self, items: Sequence[int]) -> list[int]:
        if self.over:
            self.schedule.fail(AssertionError("a driver call after the end of the lane"))
        if self.alone and self.inside:
            self.schedule.fail(AssertionError("two driver calls at once"))
        self.inside += 1
        self.schedule.sleep(self.schedule.random.choice((0, 0.01)))
        self.done.update(items)
        self.inside -= 1
        if self.schedule.random.random() < 0.1:
            raise Unavailable("no answer")
        return [2 * item for item in items]


def lanes(schedule: Schedule) -> None:
    """Threads run, submit, post and abandon calls, while another one closes."""
    draw = schedule.random
    schedule.haste = 0.0  # a close that is told to wait no longer leaves what is under way
    carried = Lane("lane", remote=True) if draw.random() < 0.7 else OpenLane("lane")
    deeds = Deeds(schedule, alone=type(carried) is Lane)
    op = Op("double", deeds, repeatable=False)
    told: Counter[int] = Counter()
    undone: Counter[int] = Counter()
    left: set[int] = set()
    answers: dict[int, Any] = {}
    blocking = Blocking(schedule)

    def undo(call: Call) -> None:
        (item,) = call.items
        undone[item] += 1
        assert not deeds.done[item] or call.results, "an undo overtook its own call"
        deeds.done[item] += 100  # whoever does it now does it after its undo

    def tell(call: Call) -> None:
        told[call.items[0]] += 1
        answers[call.items[0]] = call.results[0]

    def calls(number: int) -> None:
        for item in range(10 * number, 10 * number + draw.randrange(1, 4)):
            call = Call(op, (item,), undo=undo)
            what = draw.random()
            if what < 0.5:
                (answers[item],) = run(blocking.call(carried, call))
                continue
            call.sink = tell
            carried.submit([call])
            if what < 0.8:
                left.add(item)
                schedule.sleep(draw.choice((0, 0, 0.01)))
                carried.abandon(call)

    def close() -> None:
        schedule.sleep(draw.choice((0, 0.01, 0.02)))
        deeds.over = carried.close(1000)
        assert deeds.over, "what was under way did not end"

    threads = schedule.start(*(lambda number=number: calls(number) for number in range(3)), close)
    for thread in threads:
        thread.join()
    for item in left:
        assert undone[item] == 1, f"a call that was left was undone {undone[item]} times"
        assert told[item] <= 1
    for item, done in deeds.done.items():
        assert done in ((0, 1, 100, 101) if item in left else (0, 1)), "a call was made twice, or after its undo"
    for item, answer in answers.items():
        if item not in left:
            assert told[item] <= 1
            assert isinstance(answer, Closed) != bool(deeds.done[item])
    assert not undone.keys() - left


class Doubts:
    """Makes each call take a while, and some fail."""

    def __init__(self, schedule: Schedule, fails: float) -> None:
        self.schedule = schedule
        self.fails = fails

    def come(self, error: NarrowboatError) -> None:
        draw = self.schedule.random
        self.schedule.sleep(draw.choice((0, 0, 0.1, 0.3)))
        if draw.random() < self.fails:
            raise error

    def end(self) -> None:
        """From now on all succeeds, and no wait ends too early."""
        self.schedule.haste = self.fails = 0.0


class DoubtfulLocks(PassingLocks):
    """Calls of which some are not answered, done or not."""

    def __init__(self, inner: LockProvider, doubts: Doubts) -> None:
        super().__init__(inner)
        self.doubts = doubts
        self.withdrawn: set[str] = set()

    def attempt(self, requests: Sequence[Request]) -> list[Any]:
        return self._doubtful(super().attempt, requests)

    def renew(self, grants: Sequence[Grant]) -> list[Any]:
        # Never done without an answer: such a lease ends by itself only, and a test could wait for nothing else.
        self.doubts.come(Unavailable("not sent", sent=False))
        return super().renew(grants)

    def release(self, grants: Sequence[Grant]) -> list[Any]:
        return self._doubtful(super().release, grants)

    def withdraw(self, requests: Sequence[Request]) -> list[Any]:
        owners = {request.owner for request in requests}
        if owners & self.withdrawn:
            self.doubts.schedule.fail(AssertionError("an owner was withdrawn once more, after an answer"))
        answers = self._doubtful(super().withdraw, requests)
        self.withdrawn |= owners
        return answers

    def _doubtful(self, call: Callable[[Any], list[Any]], items: Sequence[Any]) -> list[Any]:
        self.doubts.come(Unavailable("not sent", sent=False))
        answers = call(items)
        self.doubts.come(Unavailable("no answer"))
        return answers


def possessions(schedule: Schedule) -> None:
    """Threads of one face take a name or two, renew, doubt, evict, give up, release and leave behind; some faces are closed."""
    draw, name = schedule.random, uuid.uuid4().hex
    closes = draw.random() < 0.3
    doubts = Doubts(schedule, draw.choice((0.05, 0.2)))
    if closes:  # one that waits no longer, or is not answered, leaves what is under way to the leases
        doubts.end()
    ended: Counter[tuple[str, int]] = Counter()
    inside: list[Held] = []

    def listen(event: Event) -> None:
        if isinstance(event, Lost | Released):
            ended[type(event).__name__, event.token] += 1

    faces: Any = {"clock": schedule, "random": draw.random}
    mine = narrowboat.locks(f"memory://{name}", listeners=[listen], wrap=lambda inner: DoubtfulLocks(inner, doubts), **faces)
    others = narrowboat.locks(f"memory://{name}", **faces)

    def use(held: Held) -> None:
        for other in inside:
            assert other.name != held.name or other.lost or held.lost, "two hold one name"
        inside.append(held)
        try:
            schedule.sleep(draw.choice((0, 0, 0.3, 10, 31)))
            what = draw.random()
            if what < 0.2:
                mine._core.renewal.doubt(draw.choice((None, held._grant.owner)))
            elif what < 0.3:
                inside.remove(held)
                others.evict(held.name, held.token)
            elif what < 0.4:
                held.renew()
        finally:
            with contextlib.suppress(ValueError):
                inside.remove(held)
            if draw.random() < 0.3:
                held._leave_behind()
            else:
                held.release()

    def work() -> None:
        for _ in range(draw.randrange(1, 4)):
            lock = mine.lock(draw.choice("aab"), ttl=30, timeout=draw.choice((0, 0.1, 40)))
            with contextlib.suppress(LockTimeout, LeaseLost, Closed, Unavailable):
                use(lock.acquire())

    threads = schedule.start(work, work, work)
    if closes:
        schedule.sleep(draw.choice((0, 0.1, 0.3, 10)))
        mine.close()
        assert others.holders() == [], "closed, and it holds on"
    for thread in threads:
        thread.join()
    doubts.end()
    if not closes:
        schedule.sleep(20)  # what is still due has been done by then
    assert mine._core.renewal.late.next() == math.inf, "what is due was forgotten"
    for each in "ab":
        others.lock(each, timeout=0).acquire().release()  # nobody holds it, and nobody is in line
    assert space(LockSpace, name, "").names == {}
    mine.close()
    others.close()
    assert mine._core.waiting == set()
    assert not [each for each in mine._core.renewal.possessions() if each._state is HELD]
    assert all(count == 1 for count in ended.values()), ended


class DoubtfulFeed(PassingFeed):
    """Calls of which some fail: a fetch that claims nothing, a settlement that is done or not."""

    def __init__(self, inner: Feed, doubts: Doubts) -> None:
        super().__init__(inner)
        self.doubts = doubts

    def receive(self, limit: int) -> Received:
        self.doubts.come(BrokerError("not now", retryable=False))
        return super().receive(limit)

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[Any]:
        self.doubts.come(Unavailable("not sent", sent=False))
        answers = super().settle(settlements)
        self.doubts.come(Unavailable("no answer"))
        return answers

    def extend(self, deliveries: Sequence[Delivery], seconds: float) -> list[Any]:
        self.doubts.come(Unavailable("not sent", sent=False))
        return super().extend(deliveries, seconds)


def consuming(schedule: Schedule) -> None:
    """Threads take from one consumer, one by one and in batches, and settle, extend or keep; some are closed meanwhile."""
    draw, name = schedule.random, uuid.uuid4().hex
    closes = draw.random() < 0.3
    doubts = Doubts(schedule, draw.choice((0.0, 0.1)))
    if closes:  # as above
        doubts.end()

    class Doubtful(PassingBroker):
        def feed(self, inner: Feed, wake: Callable[[], None]) -> Feed:
            return DoubtfulFeed(inner, doubts)

    faces: Any = {"clock": schedule, "random": draw.random}
    broker = narrowboat.broker(f"memory://{name}", wrap=Doubtful, **faces)
    lease = draw.choice((3, 30))
    queue = broker.queue("q", lease=lease, max_deliveries=0)
    queue.declare()
    every = {b"%d" % number for number in range(5)}
    for body in sorted(every):
        queue.publish(body)
    prefetch = draw.randrange(1, 4)
    messages = queue.consume(prefetch=prefetch, idle=2)
    consumer = messages._consumer
    window = consumer.window
    out: dict[bytes, Message[bytes]] = {}
    begun: set[bytes] = set()  # an ack was begun, and may have arrived
    acked: set[bytes] = set()
    kept: list[Message[bytes]] = []

    def use(message: Message[bytes]) -> None:
        both = [each for each in (out.get(message.body), message) if each and not each.lost and each._until > schedule()]
        assert len(both) < 2, "two have one message"
        assert message.body not in acked, "what was acknowledged comes back"
        assert len(window.unsettled) <= prefetch, "more than `prefetch`"
        out[message.body] = message
        schedule.sleep(draw.choice((0, 0, 0.5, 2)))
        what = draw.random()
        if what < 0.2:
            with contextlib.suppress(Unavailable):
                message.extend(lease)
        if out.get(message.body) is message:
            del out[message.body]
        if what < 0.3:
            message.nack(draw.choice((0, 1)))
        elif what < 0.4:
            kept.append(message)
        else:
            begun.add(message.body)
            message.ack(wait=what < 0.9)
            if what < 0.9:
                acked.add(message.body)

    def work() -> None:
        one_by_one, linger = draw.random() < 0.5, draw.choice((0, 0.5))
        while True:
            try:
                batch = [messages.receive(2)] if one_by_one else next(messages.batches(2, wait=linger), [None])
                for message in batch:
                    if message is None:
                        return
                    with contextlib.suppress(StaleDelivery, SettleUnknown):
                        use(message)
            except Closed:
                return
            except BrokerError:
                pass  # the feed's own

    threads = schedule.start(work, work, work)
    if closes:
        schedule.sleep(draw.choice((0, 0.1, 0.5, 2)))
        messages.close()
    for thread in threads:
        thread.join()
    doubts.end()
    if not closes:
        schedule.sleep(5)
        for entry in window.unsettled:
            assert entry in window.buffer or entry in kept or entry._until <= schedule(), "nobody has it, and it is extended"
    messages.close()
    assert queue.depth().in_flight == 0, "closed, and it holds on"
    rest = []
    with queue.consume(prefetch=10, idle=3) as others:
        for message in others:
            rest.append(message.body)
            message.ack()
    assert every - begun <= set(rest) <= every - acked, "lost, or acknowledged and back"
    assert len(rest) == len(set(rest)), "it comes twice"
    broker.close()
    assert not broker._core.consumers
    assert not broker._core.kept


ALL = {
    lanes: (lane, exchange, runtime),
    possessions: (lane, exchange, runtime, timer, acquire, core, late_withdrawals, possession, release, renewal),
    consuming: (lane, exchange, runtime, timer, close, consumer, delivery, extension, polling, settle, window),
}


@pytest.mark.parametrize("group", range(GROUPS))
@pytest.mark.parametrize(("main", "few"), [(lanes, 300), (possessions, 150), (consuming, 150)])
def test_no_order_of_threads_breaks_what_is_promised(main: Any, few: int, group: int) -> None:
    """Each call is made and undone once, what is due is done, nobody waits for ever, and a close leaves nothing behind."""
    for seed in seeds(few)[group::GROUPS]:
        explore(seed, main, *ALL[main])


def test_a_seed_is_the_whole_schedule() -> None:
    """The same seed switches at the same lines; another one does not.

    Of the lane that is sure. The others go through sets of objects, in the order of their addresses.
    """
    one, same, other = (explore(seed, lanes, *ALL[lanes]).switches for seed in (5, 5, 6))
    assert one == same != other


def test_threads_that_wait_for_each_other_are_told() -> None:
    """And not waited for."""

    def main(schedule: Schedule) -> None:
        first, second = Lane("first")._mutex, Lane("second")._mutex

        def take(one: Any, other: Any) -> None:
            with one:
                schedule.sleep(1)
                with other:
                    pass

        for thread in schedule.start(lambda: take(first, second), lambda: take(second, first)):
            thread.join()

    with pytest.raises(AssertionError, match=r"all wait[^$]*test-0: [^$]*test-1: "):
        explore(1, main)


#: Each mutant is found by one of so many schedules.
WITHIN = 4000


class Mutant(NamedTuple):
    """A text of one function of the core, and what is put in its place."""

    main: Any
    where: Any
    function: str
    old: str
    new: str
    found: str  #: what the failure says, where it is always the same

    def apply(self, monkeypatch: pytest.MonkeyPatch) -> None:
        source = textwrap.dedent(inspect.getsource(getattr(self.where, self.function)))
        assert source.count(self.old) == 1
        module: Any = sys.modules[self.where.__module__]
        made: dict[str, Any] = {}
        text = "from __future__ import annotations\n" + source.replace(self.old, self.new)
        exec(compile(text, module.__file__, "exec"), vars(module), made)
        monkeypatch.setattr(self.where, self.function, made[self.function])


MUTANTS = {
    "a bell that is not rung": Mutant(lanes, Lane, "run", "self._bell.put(None)", "pass", "did not end"),
    "a batch that is taken without the mutex": Mutant(lanes, Lane, "_next", "with self._mutex:", "if True:", ""),
    "a call that two undo": Mutant(lanes, Lane, "_finish", "if not left:", "if not call.left:", "undone 2 times"),
    "a signal that comes before the wait": Mutant(lanes, BlockingSignal, "take", "if self._is_set:", "if False:", "all wait"),
    "a withdraw that is kept for later twice": Mutant(
        possessions,
        LockCore,
        "withdraw_later",
        "self.releases.post(self.WITHDRAW, (request,))",
        "self.releases.submit([Call(self.WITHDRAW, (request,), sink=lambda c: self._not_withdrawn((request,), c.results))])",
        "withdrawn once more",
    ),
    "an end without the mutex": Mutant(possessions, Possession, "_end", "with self._core.mutex:", "if True:", "'Lost'"),
    "a message that is taken without the mutex": Mutant(consuming, Window, "take", "with self.mutex:", "if True:", ""),
    "what is put back is gone": Mutant(
        consuming, Window, "put_back", "buffer.extendleft(reversed(got))", "pass", "nobody has it"
    ),
    "a fetch that is reserved without the mutex": Mutant(
        consuming, Polling, "reserve", "with window.mutex:", "if True:", "more than `prefetch`"
    ),
}


def failing(main: Any) -> Callable[[int], tuple[int, BaseException] | None]:
    """What tells the seed and the failure, where a seed fails."""

    def explored(seed: int) -> tuple[int, BaseException] | None:
        try:
            explore(seed, main, *ALL[main])
        except BaseException as error:
            return seed, error
        return None

    return explored


@pytest.fixture
def torn() -> Iterator[None]:
    """A schedule that failed closes nothing: what says so comes before the next test."""
    yield
    gc.collect()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.usefixtures("torn")
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tool sees it, and of the lane the seed that finds it finds it again."""
    mutant = MUTANTS[name]
    mutant.apply(monkeypatch)
    seed, failure = next(found for found in map(failing(mutant.main), range(WITHIN)) if found is not None)
    assert mutant.found in str(failure)
    if mutant.main is lanes:
        again = failing(mutant.main)(seed)
        assert again is not None
        assert type(again[1]) is type(failure)
