"""The two pure machines behind a consumer, against models: what becomes of a delivery, and what a window has in it."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from narrowboat._messages.delivery import HELD, LOST, SETTLED, SETTLING, TrackedDelivery, begin, confirm, withdraw
from narrowboat._messages.window import EXPIRED, Window
from narrowboat.contract.messages import Delivery
from narrowboat.errors import AccessDenied, SettleUnknown, StaleDelivery, Unavailable

OWNER = SimpleNamespace(path="orders", backend="model", codec=None, has_ended=lambda delivery: False)


def tracked(number: int = 0, until: float = 100.0, expires: float | None = None) -> TrackedDelivery[bytes]:
    delivery = Delivery(str(number), b"", {}, None, 1, None, 0, None, None, None, None, None)
    return TrackedDelivery(OWNER, delivery, until, 1000.0, expires)


#: What a backend may answer to a settlement, what it comes to, and what the caller is told while no doubt is left behind.
ANSWERS = {
    "done": (None, SETTLED, None),
    "stale": (StaleDelivery("gone"), LOST, StaleDelivery),
    "refused": (AccessDenied("no"), HELD, AccessDenied),
    "not sent": (Unavailable("refused", sent=False), HELD, SettleUnknown),
    "silent": (Unavailable("no answer"), HELD, SettleUnknown),
}


class DeliveryMachine(RuleBasedStateMachine):
    """Whatever happens to a delivery, in whichever order, the model says the same."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = tracked()
        self.state, self.doubtful = HELD, False  # the model

    @rule()
    def a_settlement_begins(self) -> None:
        mine: list[TrackedDelivery[bytes]] = []
        begin([self.entry], mine)
        assert bool(mine) is (self.state is HELD)
        self.state = SETTLING if mine else self.state

    @precondition(lambda self: self.state is SETTLING)
    @rule(answer=st.sampled_from(sorted(ANSWERS)))
    def it_is_answered(self, answer: str) -> None:
        given, self.state, told = ANSWERS[answer]
        self.doubtful = self.doubtful or answer == "silent"
        unsure = self.doubtful and answer != "done"  # an earlier call may have done it, whatever this one says
        assert isinstance(self.entry._answered(given), SettleUnknown if unsure else told or type(None))

    @precondition(lambda self: self.state is SETTLING)
    @rule(asked=st.booleans())
    def its_caller_leaves_without_an_answer(self, asked: bool) -> None:
        withdraw([self.entry], doubtful=asked)
        self.state, self.doubtful = HELD, self.doubtful or asked

    @precondition(lambda self: self.state is SETTLING)
    @rule()
    def all_of_a_batch_are_settled(self) -> None:
        confirm([self.entry])
        self.state = SETTLED

    @rule()
    def its_lease_ends(self) -> None:
        assert self.entry._lose() is (self.state is HELD)
        self.state = LOST if self.state is HELD else self.state

    @precondition(lambda self: self.state in (SETTLED, LOST))
    @rule()
    def another_one_comes(self) -> None:
        self.entry, self.state, self.doubtful = tracked(), HELD, False

    @invariant()
    def it_says_what_the_model_says(self) -> None:
        assert self.entry._state is self.state
        assert (self.entry.lost, self.entry.settled) == (self.state is LOST, self.state in (SETTLED, SETTLING))
        assert isinstance(self.entry._stale(), SettleUnknown if self.doubtful and self.state is LOST else StaleDelivery)


class WindowMachine(RuleBasedStateMachine):
    """Each message is handed out at most once, in order, while it is ours; nothing that is unsettled is forgotten."""

    PREFETCH, BATCH = 5, 3

    def __init__(self) -> None:
        super().__init__()
        self.window: Window[TrackedDelivery[bytes]] = Window(self.PREFETCH, self.BATCH)
        self.now, self.number = 0.0, 0
        self.buffer: list[TrackedDelivery[bytes]] = []  # the model: what is to be handed out, in order
        self.handed: list[TrackedDelivery[bytes]] = []  # what was handed out and is not settled

    @rule(lives=st.lists(st.sampled_from([1.0, 3.0, 50.0]), max_size=BATCH), ttl=st.sampled_from([None, 2.0]))
    def a_fetch_brings(self, lives: list[float], ttl: float | None) -> None:
        expires = None if ttl is None else self.now + ttl
        fresh = [tracked(self.number + index, self.now + life, expires) for index, life in enumerate(lives)]
        fresh = fresh[: self.window.room(0)]
        self.number += len(fresh)
        with self.window.mutex:
            self.window.admit(fresh, {})
        self.buffer += fresh

    @rule(count=st.integers(1, 4), keep=st.booleans())
    def somebody_takes(self, count: int, keep: bool) -> None:
        got: list[TrackedDelivery[bytes]] = []
        self.window.take(count, got, self.now)
        want: list[TrackedDelivery[bytes]] = []
        while self.buffer and len(want) < count:
            entry = self.buffer.pop(0)
            if entry._until > self.now and (entry._expires is None or entry._expires > self.now):
                want.append(entry)
        assert got == want
        if keep:
            self.handed += got
        else:
            self.window.put_back(got)
            self.buffer[:0] = want
            assert not got

    @rule(step=st.sampled_from([0.5, 1.0, 10.0]))
    def time_goes_by(self, step: float) -> None:
        self.now += step

    @precondition(lambda self: self.handed)
    @rule()
    def one_is_settled(self) -> None:
        entry = self.handed.pop(0)
        with self.window.mutex:
            self.window.unsettled.discard(entry)

    @rule()
    def what_has_ended_is_swept(self) -> None:
        with self.window.mutex:
            first = self.window.sweep(self.now)
        assert all(entry._until > self.now for entry in self.window.unsettled)
        assert first == min((entry._until for entry in self.window.unsettled), default=self.now)

    @invariant()
    def it_keeps_its_bounds_and_all_that_is_ours(self) -> None:
        ours = {entry for entry in (*self.buffer, *self.handed) if entry._until > self.now}
        assert ours <= self.window.unsettled
        assert list(self.window.buffer) == self.buffer
        assert all(outcome is EXPIRED for outcome in self.window.condemned.values())
        assert self.window.room(0) <= self.BATCH
        assert len(self.window.unsettled) <= self.PREFETCH and self.window.full is (self.window.room(0) == 0)


def checked(machine: type[RuleBasedStateMachine]) -> Any:
    """The machine as a test."""
    case = machine.TestCase
    case.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
    return case


TestDelivery = checked(DeliveryMachine)
TestWindow = checked(WindowMachine)


def test_an_interrupted_admit_loses_nothing() -> None:
    """What reached the buffer is counted as unsettled, and what did not is named."""
    window: Window[TrackedDelivery[bytes]] = Window(10, 10)
    first, second = tracked(1), tracked(2)
    window.buffer.append(first)  # the interrupt struck here

    assert window.missing([first._delivery, second._delivery]) == [second._delivery]
    assert window.unsettled == {first}


@pytest.mark.parametrize("ended", [True, False])
def test_what_was_gathered_during_a_wait_is_asked_for_again(ended: bool) -> None:
    """A feed that has heard of the end of a claim has the last word."""
    window: Window[TrackedDelivery[bytes]] = Window(10, 10)
    entry = tracked()
    window.admit([entry], {})
    got: list[TrackedDelivery[bytes]] = []
    window.take(1, got, 0.0)
    window.current = lambda delivery: not ended

    assert window.still_ours(got) is not ended
    assert (got, entry._state) == (([], LOST) if ended else ([entry], HELD))
