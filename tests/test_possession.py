"""What becomes of a possession: every transition in every order, beside a model of a few lines."""

from __future__ import annotations

import threading
from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from narrowboat._engine.validity import deadline
from narrowboat._locks.possession import HELD, LEAVING, LOST, OURS, RELEASED, Possession, State
from narrowboat.clock import Clock, ManualClock
from narrowboat.contract.locks import Grant, Mode
from narrowboat.errors import Reason

TTL = 10.0


class Provider:
    """What a possession comes from, without a backend."""

    backend, margin = "none", 0.0

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.random: Callable[[], float] = lambda: 0.5
        self.mutex = threading.RLock()
        self.behind: list[Possession] = []
        self.forgotten: list[Possession] = []
        self.forget = self.forgotten.append
        self.left_behind = self.behind.append

    def lapse(self, possession: Possession) -> None:
        possession._end(LOST, Reason.EXPIRED)


class Acquire:
    """An acquire that turned out to be nested."""

    held: Possession | None = None
    nested = False


class Life(RuleBasedStateMachine):
    """One possession, and what the model says of it: its state, its depth, until when it is ours, who releases it."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.provider = Provider(self.clock)
        grant = Grant("a", "owner", 7, TTL, Mode.EXCLUSIVE, None)
        self.possession = Possession(self.provider, grant, self.clock(), renew=True, caller=self.provider)
        self.told: list[Possession] = []
        assert self.possession._watch(self.told.append)
        self.state, self.depth, self.until = HELD, 1, deadline(self.clock(), TTL)
        self.releasing: list[Callable[[], None]] | None = None
        self.standing_by = 0
        self.woken: list[None] = []
        self.sent: float | None = None  # when the renewal that is under way was
        self.doubted = False

    def over(self, state: State) -> None:
        if self.state in OURS:
            self.state = state

    @rule(seconds=st.floats(0.0, TTL))
    def time_goes_on(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def somebody_looks(self) -> None:
        """Past its end it is lost, unless it is being released: then what is asked of the backend decides."""
        if self.state is HELD and self.clock() >= self.until:
            self.state = LOST
        assert self.possession.lost == (self.state is LOST)

    @precondition(lambda self: self.state is HELD)
    @rule()
    def nests(self) -> None:
        inner = Acquire()
        self.possession._nest(inner)
        assert inner.held is self.possession and inner.nested
        self.depth += 1

    @rule()
    def release_begins(self) -> None:
        """The outermost one is sent, once; others stand by."""
        mine: list[Callable[[], None]] = []
        nothing_to_do = self.possession._begin_release(mine, lambda: self.woken.append(None))
        inner = self.depth > 1 and self.state is HELD
        assert nothing_to_do == (self.state is RELEASED or inner)
        if inner:
            self.depth -= 1
        elif self.releasing is not None and not nothing_to_do:
            self.standing_by += 1
        elif self.state in OURS:
            self.state, self.releasing = LEAVING, mine

    @precondition(lambda self: self.releasing is not None)
    @rule(answer=st.sampled_from(["released", "gone", "unknown"]))
    def release_ends(self, answer: str) -> None:
        """Whatever it comes to, who stands by is woken once."""
        if answer == "unknown":
            self.possession._release_unknown()
        else:
            state = RELEASED if answer == "released" else LOST
            self.possession._end(state, None if state is RELEASED else Reason.TAKEN)
            self.over(state)
        if self.possession._releasing is self.releasing:
            self.possession._end_release()
        self.releasing = None
        assert len(self.woken) == self.standing_by

    @rule(reason=st.sampled_from([Reason.TAKEN, Reason.CLOSED]))
    def loses(self, reason: Reason) -> None:
        assert self.possession._end(LOST, reason) == (self.state in OURS)
        self.over(LOST)

    @rule()
    def is_left_behind(self) -> None:
        self.possession._leave_behind()
        if self.state is HELD and self.depth == 1:
            self.state = LEAVING

    @precondition(lambda self: self.provider.behind)
    @rule()
    def what_was_left_behind_is_given_back(self) -> None:
        """Not an inner one, and not what somebody is releasing."""
        self.provider.behind.pop()
        inner = self.depth > 1 and self.state is HELD
        free = self.possession._give_back()
        assert free == (not inner and self.releasing is None and self.state in OURS)
        if inner:
            self.depth -= 1
        if free:
            self.possession._end(RELEASED)
            self.over(RELEASED)

    @precondition(lambda self: self.sent is None)
    @rule()
    def renewal_is_sent(self) -> None:
        self.possession._begin_renewal()
        self.sent = self.clock()

    @rule()
    def driver_has_doubts(self) -> None:
        """They are looked into at once, or after the renewal that is under way."""
        assert self.possession._doubt() == (self.sent is None and self.state is HELD)
        self.doubted = self.doubted or self.sent is not None

    @precondition(lambda self: self.sent is not None)
    @rule(granted=st.booleans())
    def renewal_is_answered(self, granted: bool) -> None:
        """It lengthens what is still ours, and revives nothing."""
        assert self.sent is not None
        ours = self.state is HELD and self.clock() < self.until
        grant = self.possession._grant if granted else None
        assert self.possession._end_renewal(self.clock(), self.sent, grant) == (ours, self.doubted)
        if ours and granted:
            self.until = max(self.until, deadline(self.sent, TTL))
        self.sent, self.doubted = None, False

    @invariant()
    def is_what_the_model_says(self) -> None:
        """Its end is told once, to everybody, and to the table of holders."""
        found = self.possession
        assert (found._state, found._depth, found._deadline) == (self.state, self.depth, self.until)
        ended = 0 if self.state in OURS else 1
        assert len(self.told) == len(self.provider.forgotten) == ended
        assert (found._reason is not None) == (self.state is LOST)


Life.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestLife = Life.TestCase
